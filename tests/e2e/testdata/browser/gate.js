// The gate of a track: encoded frames pass while it is open and are gone while it is not.
// A closed gate leaves no hole in the sequence numbers, which are given out behind it.

const clockEvery = 5000; // ms

let open = false;
let asked; // the request that the next frame answers
let go; // lets the held frame on
let last = 0;
let told = 0;
const sent = []; // the payload of each frame that passed, base64

onmessage = ({ data }) => {
  if (data.go) {
    go?.();
  } else if (data.sent) {
    postMessage({ id: data.id, sent });
  } else if (data.open) {
    asked = data.id;
  } else {
    open = false;
    asked = undefined;
    postMessage({ id: data.id, last });
  }
};

onrtctransform = ({ transformer }) => {
  const filter = new TransformStream({
    async transform(frame, out) {
      const wall = performance.timeOrigin + performance.now();
      const rtp = frame.getMetadata().rtpTimestamp;
      if (asked !== undefined) {
        const id = asked;
        asked = undefined;
        const held = new Promise((done) => (go = done));
        postMessage({ id, rtp, last, wall });
        await held;
        open = true;
        told = wall;
      }
      if (!open) return;
      last = rtp;
      if (wall - told > clockEvery) {
        told = wall;
        postMessage({ clock: { rtp, wall } });
      }
      sent.push(btoa(String.fromCharCode(...new Uint8Array(frame.data))));
      out.enqueue(frame);
    },
  });
  transformer.readable
    .pipeThrough(filter)
    .pipeTo(transformer.writable)
    .catch((e) => postMessage({ fault: String(e) }));
};

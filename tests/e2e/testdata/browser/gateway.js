// The media side of a gateway, in a browser: one peer connection a call, whose track a0
// carries a tone. The process that serves this page answers the recorder's requests and
// says here what to do; see PROTOCOL.md. There is no header extension: what a0 carries is
// said on the control channel alone.

const calls = new Map();

// A page that may use a microphone is offered every address of the machine, loopback too.
const permitted = navigator.mediaDevices.getUserMedia({ audio: true });

const commands = {
  async ready() {
    await permitted;
    return {};
  },

  /** Makes the peer connection and its offer. */
  async create({ call, hello }) {
    const audio = new AudioContext({ sampleRate: 48000 });
    await audio.resume();
    const tone = new OscillatorNode(audio, { frequency: 400 });
    const out = new MediaStreamAudioDestinationNode(audio, { channelCount: 1, channelCountMode: "explicit" });
    tone.connect(new GainNode(audio, { gain: 0.4 })).connect(out);
    tone.start();
    const pc = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
    const opus = RTCRtpSender.getCapabilities("audio").codecs.filter((c) => c.mimeType === "audio/opus");
    for (const track of [out.stream.getAudioTracks()[0], "audio", "audio", "audio", "audio"]) {
      pc.addTransceiver(track, { direction: "sendonly" }).setCodecPreferences(opus);
    }
    const c = { audio, tone, pc, seq: 0, n: 0, pings: 0, bound: new Map(), waiting: new Map() };
    c.gate = gate(c, pc.getSenders()[0]);
    c.ctl = pc.createDataChannel("ctl", { protocol: "mgw.v1" });
    c.ctl.onopen = () => say(c, { t: "hello", callId: call, contract: "1.0", ...hello });
    c.ctl.onmessage = (m) => hear(c, m.data);
    calls.set(call, c);
    await pc.setLocalDescription();
    await gathered(pc);
    return { sdp: pc.localDescription.sdp };
  },

  async answer({ call, sdp }) {
    await calls.get(call).pc.setRemoteDescription({ type: "answer", sdp });
    return {};
  },

  /** Opens the gate, or gives a0 to another source with another tone. Returns the RTP time of the first frame. */
  async carry({ call, source, hz }) {
    const c = calls.get(call);
    c.tone.frequency.value = hz;
    const { rtp, last, wall } = await ask(c, { open: true });
    if (c.source === undefined) {
      say(c, { t: "gate", state: "open", reason: "opened", rtp: { audio: rtp, video: 0 } }, clock(rtp, wall), { t: "mode", audio: "unmixed", rtp });
    } else {
      say(c, { t: "unbind", n: ++c.n, track: "a0", epoch: c.epoch, source: c.source, rtp: last, reason: "taken" });
    }
    c.source = source;
    c.epoch = ((c.epoch ?? 0) + 1) % 256;
    say(c, { t: "bind", n: ++c.n, track: "a0", epoch: c.epoch, source, rtp });
    // What the browser sends next was bound before it: the line goes first, and time for it is given.
    await Promise.race([new Promise((done) => c.bound.set(c.n, done)), new Promise((done) => setTimeout(done, 200))]);
    c.gate.postMessage({ go: true });
    return { rtp };
  },

  /** Closes the gate. No later frame leaves once this has returned. */
  async shut({ call, reason }) {
    const c = calls.get(call);
    const { last } = await ask(c, { open: false });
    if (c.source !== undefined) {
      say(c, { t: "unbind", n: ++c.n, track: "a0", epoch: c.epoch, source: c.source, rtp: last, reason });
      say(c, { t: "gate", state: "closed", reason, rtp: { audio: last, video: 0 } });
      c.source = undefined;
    }
    return { rtp: last };
  },

  /** Ends a call and tells what passed its gate. */
  async remove({ call }) {
    const c = calls.get(call);
    if (!c) return {};
    calls.delete(call);
    const { sent } = await ask(c, { sent: true });
    c.pc.close();
    c.gate.terminate();
    await c.audio.close();
    return { pings: c.pings, sent };
  },
};

/** Lets frames of a sender through while it is open, and counts its RTP time. */
function gate(c, sender) {
  const worker = new Worker("/gate.js");
  sender.transform = new RTCRtpScriptTransform(worker);
  worker.onmessage = ({ data }) => {
    if (data.fault) fail(data.fault);
    if (data.clock && c.source !== undefined) say(c, clock(data.clock.rtp, data.clock.wall));
    c.waiting.get(data.id)?.(data);
    c.waiting.delete(data.id);
  };
  return worker;
}

let asked = 0;

function ask(c, what) {
  const id = ++asked;
  return new Promise((done) => {
    c.waiting.set(id, done);
    c.gate.postMessage({ id, ...what });
  });
}

/** Ties RTP time to wall time. Units of 100 ns since 1900 do not fit a JSON number. */
function clock(rtp, wall) {
  const ts = (BigInt(Math.round(wall * 1000)) + 2208988800000000n) * 10n;
  return { t: "clock", kind: "audio", rtp, ts: String(ts), wall: new Date(wall).toISOString() };
}

function say(c, ...lines) {
  if (c.ctl.readyState === "open") c.ctl.send(lines.map((l) => JSON.stringify({ ...l, seq: ++c.seq }) + "\n").join(""));
}

function hear(c, text) {
  for (const line of text.split("\n").filter(Boolean).map((l) => JSON.parse(l))) {
    if (line.t === "ping") c.pings++;
    if (line.t === "bound") c.bound.get(line.n)?.();
  }
}

function gathered(pc) {
  return new Promise((done) => {
    const look = () => pc.iceGatheringState === "complete" && done();
    pc.onicegatheringstatechange = look;
    look();
  });
}

const post = (body) => fetch("/replies", { method: "POST", body: JSON.stringify(body) });
const fail = (why) => post({ fault: String(why) });
addEventListener("error", (e) => fail(e.message));
addEventListener("unhandledrejection", (e) => fail(e.reason));

new EventSource("/commands").onmessage = async (e) => {
  const { id, what, ...rest } = JSON.parse(e.data);
  try {
    await post({ id, ...(await commands[what](rest)) });
  } catch (fault) {
    await post({ id, fault: String(fault) });
  }
};

import Hls from "hls.js";
import { at } from "./base";
import type { SignIn } from "./signin";

/** A stretch of a playlist and when it was, on the clock on the wall. */
interface Stretch {
  start: number; // seconds on the player's own clock
  duration: number;
  wall: number; // milliseconds since 1970
}

/** What a page shows of a playback. */
export interface PlaybackState {
  ready: boolean;
  playing: boolean;
  wall: number; // where it stands
  speed: number;
  lane: string; // what is listened to
  live: boolean; // more is coming
  fault: string;
  errors: number; // what hls.js complained about, mended or not
  complaint: string; // the last of it
}

const mediaEvents = ["play", "pause", "ended", "ratechange", "timeupdate", "seeking", "seeked", "canplay", "waiting", "loadedmetadata"] as const;

/** How often, and after how long, a playlist that did not come is asked for again. */
const maxRetries = 5;
const retryAfter = 2000;

function stretchesOf(details: { fragments: { start: number; duration: number; programDateTime: number | null }[] }): Stretch[] {
  return details.fragments.map((f) => ({ start: f.start, duration: f.duration, wall: f.programDateTime ?? 0 }));
}

/** The address of something that belongs to a leg. */
export function legAddress(conversation: string, leg: string, rest: string): string {
  return at(`v1/conversations/${conversation}/legs/${leg}/${rest}`);
}

/**
 * Playback of one leg through hls.js: the audio element, and at most one picture that
 * follows it. All requests carry the bearer token; there is no cookie and no ticket in
 * an address.
 *
 * Each rendition is played from its own playlist. All of them cover the whole leg in
 * equal segments, so a change of rendition goes on at the same moment.
 */
export class Playback {
  private hls: Hls | null = null;
  private readonly token: Bearer;
  private stretches: Stretch[] = [];
  private picture: Picture | null = null;
  private wanted = false; // playing is what was asked for, whatever the element does meanwhile
  private pending: number | null = null; // where to go once there is something to go to
  private retries = 0;
  private seeking = 0; // for how many beats
  private readonly beat: ReturnType<typeof setInterval>;
  state: PlaybackState = { ready: false, playing: false, wall: 0, speed: 1, lane: "", live: false, fault: "", errors: 0, complaint: "" };

  constructor(
    private readonly audio: HTMLAudioElement,
    signIn: SignIn,
    private readonly address: (rest: string) => string,
    private readonly changed: (s: PlaybackState) => void,
  ) {
    this.token = new Bearer(signIn);
    for (const name of mediaEvents) audio.addEventListener(name, this.onMedia);
    // What an element does while its source is exchanged differs from moment to moment; what
    // was asked for holds.
    this.beat = setInterval(() => this.hold(), 250);
    this.listen("mixed");
  }

  /** Plays a lane from here on. */
  listen(lane: string) {
    if (lane === this.state.lane) return;
    this.retries = 0;
    this.open(lane);
  }

  private reload() {
    this.open(this.state.lane);
  }

  private open(lane: string) {
    const { currentTime, playbackRate } = this.audio;
    this.pending ??= this.state.lane ? currentTime : null;
    this.hls?.destroy();
    const hls = new Hls({ ...this.token.config(), startPosition: this.pending ?? -1 });
    this.hls = hls;
    hls.on(Hls.Events.LEVEL_UPDATED, (_, d) => {
      this.stretches = stretchesOf(d.details);
      this.set({ live: d.details.live, wall: this.wallAt(this.audio.currentTime) });
    });
    hls.on(Hls.Events.ERROR, (_, d) => {
      if (d.details === Hls.ErrorDetails.INTERNAL_ABORTED) return; // a seek called a request off
      this.set({ errors: this.state.errors + 1, complaint: `${d.details} ${d.response?.code ?? ""}` });
      if (!d.fatal) return;
      if (d.type === Hls.ErrorTypes.MEDIA_ERROR) hls.recoverMediaError();
      else if (d.response?.code !== 404 && d.response?.code !== 401 && this.retries++ < maxRetries) {
        // A busy archive: where it stands is kept, and the list is asked for again.
        setTimeout(() => this.hls === hls && this.reload(), retryAfter);
      } else this.set({ fault: d.response?.code === 404 || d.response?.code === 401 ? "This recording is not yours to play any longer." : "The recording could not be loaded." });
    });
    hls.loadSource(this.address(`audio/${lane}.m3u8`));
    hls.attachMedia(this.audio);
    this.audio.defaultPlaybackRate = playbackRate;
    this.audio.playbackRate = playbackRate;
    if (this.wanted) this.start();
    this.set({ lane });
  }

  private readonly onMedia = (e: Event) => {
    if (e.type === "loadedmetadata" || e.type === "canplay") this.hold();
    if (e.type === "ended") this.wanted = false;
    this.set({
      ready: this.audio.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA,
      playing: this.wanted,
      wall: this.wallAt(this.pending ?? this.audio.currentTime),
      speed: this.audio.playbackRate,
    });
    this.picture?.follow(this.audio, this.state.wall);
  };

  /** Goes where it was asked to go, and plays if that was asked for. */
  private hold() {
    if (this.audio.readyState < HTMLMediaElement.HAVE_METADATA) return;
    // A seek that called a request off may leave nothing under way: it is asked for anew.
    this.seeking = this.audio.seeking ? this.seeking + 1 : 0;
    if (this.seeking === 6) {
      this.seeking = 0;
      this.hls?.startLoad(this.audio.currentTime);
    }
    if (this.pending !== null) {
      this.audio.currentTime = this.pending;
      this.pending = null;
    }
    if (this.wanted && this.audio.paused && !this.audio.ended && this.audio.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA) this.start();
  }

  private set(change: Partial<PlaybackState>) {
    this.state = { ...this.state, ...change };
    this.changed(this.state);
  }

  private wallAt(time: number): number {
    const s = this.stretches.findLast((x) => x.start <= time + 0.001) ?? this.stretches[0];
    return s ? s.wall + (time - s.start) * 1000 : 0;
  }

  /** Goes to a moment on the clock on the wall. */
  seek(wall: number) {
    const s = this.stretches.findLast((x) => x.wall <= wall) ?? this.stretches[0];
    if (!s) return;
    const time = s.start + Math.min(Math.max(0, (wall - s.wall) / 1000), Math.max(0, s.duration - 0.01));
    if (this.audio.readyState < HTMLMediaElement.HAVE_METADATA) this.pending = time;
    else this.audio.currentTime = time;
    this.set({ wall: this.wallAt(time) });
  }

  skip(seconds: number) {
    this.seek(this.state.wall + seconds * 1000);
  }

  toggle() {
    this.wanted = !this.wanted || this.audio.ended;
    if (this.wanted) this.start();
    else this.audio.pause();
  }

  private start() {
    this.audio.play().catch((e: unknown) => {
      // A change of rendition calls a start off; the next one is on its way.
      if (!(e instanceof DOMException && e.name === "AbortError")) this.set({ fault: "The browser did not start playing." });
    });
  }

  speed(rate: number) {
    this.audio.playbackRate = rate;
    this.audio.preservesPitch = true;
  }

  /** Goes to what is happening now. */
  goLive() {
    const edge = this.hls?.liveSyncPosition;
    if (edge !== null && edge !== undefined) this.audio.currentTime = edge;
  }

  /** Shows a picture lane in an element, or none. */
  show(video: HTMLVideoElement | null, playlist: string | null) {
    this.picture?.stop();
    this.picture = video && playlist ? new Picture(video, this.token, this.address(playlist)) : null;
    this.picture?.follow(this.audio, this.state.wall);
  }

  stop() {
    for (const name of mediaEvents) this.audio.removeEventListener(name, this.onMedia);
    clearInterval(this.beat);
    this.picture?.stop();
    this.token.stop();
    this.hls?.destroy();
  }
}

/** Keeps a fresh bearer token for a player that asks without waiting. */
class Bearer {
  private readonly timer: ReturnType<typeof setInterval>;
  private token: Promise<string | null>;

  constructor(private readonly signIn: SignIn) {
    this.token = signIn.token();
    this.timer = setInterval(() => {
      this.token = this.signIn.token();
    }, 60_000);
  }

  config() {
    return {
      // A worker would be a script from a blob: address, which the page's policy refuses.
      enableWorker: false,
      backBufferLength: 60,
      maxBufferLength: 30,
      lowLatencyMode: false,
      xhrSetup: async (xhr: XMLHttpRequest, url: string) => {
        const token = await this.token;
        if (xhr.readyState === XMLHttpRequest.UNSENT) xhr.open("GET", url, true);
        xhr.setRequestHeader("Authorization", `Bearer ${token ?? ""}`);
      },
    };
  }

  stop() {
    clearInterval(this.timer);
  }
}

/** A muted picture that follows the sound: it has an end of its own, and gaps. */
class Picture {
  private readonly hls: Hls;
  private stretches: Stretch[] = [];

  constructor(private readonly video: HTMLVideoElement, token: Bearer, address: string) {
    video.muted = true;
    this.hls = new Hls(token.config());
    this.hls.on(Hls.Events.LEVEL_UPDATED, (_, d) => {
      this.stretches = stretchesOf(d.details);
    });
    this.hls.on(Hls.Events.ERROR, (_, d) => {
      if (d.fatal && d.type === Hls.ErrorTypes.MEDIA_ERROR) this.hls.recoverMediaError();
    });
    this.hls.loadSource(address);
    this.hls.attachMedia(video);
  }

  follow(audio: HTMLAudioElement, wall: number) {
    const s = this.stretches.findLast((x) => x.wall <= wall);
    const there = s !== undefined && wall < s.wall + s.duration * 1000 + 500;
    this.video.style.visibility = there ? "visible" : "hidden";
    if (!there) {
      this.video.pause();
      return;
    }
    const want = s.start + (wall - s.wall) / 1000;
    if (Math.abs(this.video.currentTime - want) > 0.25) this.video.currentTime = want;
    this.video.playbackRate = audio.playbackRate;
    if (audio.paused) this.video.pause();
    else if (this.video.paused) void this.video.play().catch(() => {}); // it is tried again with the next frame of sound
  }

  stop() {
    this.hls.destroy();
    this.video.style.visibility = "hidden";
  }
}

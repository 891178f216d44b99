import { Button, MessageBar, MessageBarBody, MessageBarTitle, Radio, RadioGroup, Select, Spinner } from "@fluentui/react-components";
import { PauseFilled, PlayFilled, SkipBack10Regular, SkipForward10Regular } from "@fluentui/react-icons";
import { useCallback, useEffect, useMemo, useRef, useState } from "react";
import type { Lane, Leg, Player as PlayerDocument } from "./api-types";
import { gapNames, type Drawn, Lanes } from "./Lanes";
import { useLoading, usePortal } from "./loading";
import { legAddress, Playback, type PlaybackState } from "./playback";
import { Busy, Failure, Notice } from "./states";
import { formatDuration, formatTime } from "./words";

const speeds = [0.5, 0.75, 1, 1.25, 1.5, 2, 3];

/** How often a running call is looked at again. */
const refresh = 6000;

export default function Player({ conversation, leg }: { conversation: string; leg: Leg }) {
  const { api, signIn } = usePortal();
  const path = useMemo(() => ({ id: conversation, leg: leg.leg }), [conversation, leg.leg]);
  const { data, error, again } = useLoading(useCallback((signal: AbortSignal) => api.get("/conversations/{id}/legs/{leg}", { path }, signal), [api, path]));
  const [fresh, setFresh] = useState<PlayerDocument | null>(null);
  const doc = fresh ?? data;
  useEffect(() => {
    if (doc?.state !== "running") return;
    const timer = setTimeout(() => {
      api.get("/conversations/{id}/legs/{leg}", { path }).then(setFresh, () => setFresh((d) => d && { ...d })); // tried again with the next turn
    }, refresh);
    return () => clearTimeout(timer);
  }, [api, path, doc]);
  if (error) return <Failure error={error} again={again} signIn={signIn} />;
  if (!doc) return <Busy label="Opening the recording" />;
  return (
    <>
      <MessageBar intent="info" layout="multiline">
        <MessageBarBody>
          <MessageBarTitle>This reading is recorded.</MessageBarTitle> Custody event <span className="mono" data-event={doc.event}>{doc.event}</span>
        </MessageBarBody>
      </MessageBar>
      {doc.master && doc.from && doc.to ? <Deck conversation={conversation} doc={doc} from={Date.parse(doc.from)} to={Date.parse(doc.to)} /> : <Nothing doc={doc} />}
      <History doc={doc} />
    </>
  );
}

function Nothing({ doc }: { doc: PlayerDocument }) {
  if (doc.state === "running") return <Notice title="Nothing to hear yet"><p>The call is being recorded. Its first seconds appear here in a moment.</p></Notice>;
  switch (doc.outcome) {
    case "empty":
      return <Notice title="There was no conversation"><p>The call was missed, declined or never let in. Nothing was said that could be recorded.</p></Notice>;
    case "excluded":
      return <Notice title="Not recorded by rule"><p>A recording rule kept this call from being recorded.</p></Notice>;
  }
  return <Notice title="The recording was lost"><p>{doc.reason || "Nothing of this leg reached the archive."}</p></Notice>;
}

/** The peaks of an ended leg. */
function usePeaks(conversation: string, doc: PlayerDocument): Map<string, Drawn> {
  const { api } = usePortal();
  const [drawn, setDrawn] = useState(new Map<string, Drawn>());
  useEffect(() => {
    if (!doc.peaks) return;
    const stop = new AbortController();
    api.get("/conversations/{id}/legs/{leg}/peaks", { path: { id: conversation, leg: doc.leg } }, stop.signal).then(
      (p) => {
        setDrawn(new Map(p.tracks.map((t) => [t.track, { from: Date.parse(t.from), perSecond: p.perSecond, peaks: Uint8Array.from(atob(t.peaks), (c) => c.charCodeAt(0)) }])));
      },
      () => {}, // the lanes stay plain
    );
    return () => stop.abort();
  }, [api, conversation, doc.leg, doc.peaks]);
  return drawn;
}

function usePlayback(conversation: string, leg: string) {
  const { api } = usePortal();
  const audio = useRef<HTMLAudioElement>(null);
  const playback = useRef<Playback>(null);
  const [state, setState] = useState<PlaybackState | null>(null);
  useEffect(() => {
    if (!audio.current) return;
    const p = new Playback(audio.current, api.identity, (rest) => legAddress(conversation, leg, rest), setState);
    playback.current = p;
    return () => p.stop();
  }, [api, conversation, leg]);
  return { audio, playback, state };
}

const nameOfLane = (l: Lane) => l.party?.name || l.party?.id || (l.id === "received-mix" ? "Everybody, as received" : "Unknown speaker");

function Deck({ conversation, doc, from, to }: { conversation: string; doc: PlayerDocument; from: number; to: number }) {
  const { audio, playback, state } = usePlayback(conversation, doc.leg);
  const drawn = usePeaks(conversation, doc);
  const lane = state?.lane || "mixed";
  const voices = doc.lanes.filter((l) => l.kind === "audio");
  const wall = state?.wall || from;
  const seek = useCallback((w: number) => playback.current?.seek(w), [playback]);
  return (
    <div
      className="deck"
      data-errors={state?.errors ?? 0}
      data-complaint={state?.complaint ?? ""}
      role="group"
      aria-label="Player"
      onKeyDown={(e) => {
        // Sliders, lists and radios have keys of their own.
        if (e.target instanceof HTMLElement && e.target.matches("input, select, button")) return;
        if (e.key === "ArrowLeft") playback.current?.skip(-10);
        else if (e.key === "ArrowRight") playback.current?.skip(10);
        else return;
        e.preventDefault();
      }}
    >
      <audio ref={audio} data-player />
      {state?.fault && <MessageBar intent="error"><MessageBarBody role="alert">{state.fault}</MessageBarBody></MessageBar>}
      {state && <Pictures doc={doc} show={(video, list) => playback.current?.show(video, list)} />}
      <div className="transport">
        <Button icon={<SkipBack10Regular />} aria-label="Back ten seconds" onClick={() => playback.current?.skip(-10)} />
        <Button appearance="primary" icon={state?.playing ? <PauseFilled /> : <PlayFilled />} onClick={() => playback.current?.toggle()}>{state?.playing ? "Pause" : "Play"}</Button>
        <Button icon={<SkipForward10Regular />} aria-label="Forward ten seconds" onClick={() => playback.current?.skip(10)} />
        <span className="clock" data-clock={Math.round(wall - from)}>{formatDuration(wall - from)} of {formatDuration(to - from)}</span>
        <span className="sub">{formatTime(new Date(wall).toISOString())}</span>
        <label>
          Speed{" "}
          <Select size="small" value={String(state?.speed ?? 1)} onChange={(_, d) => playback.current?.speed(Number(d.value))}>
            {speeds.map((s) => <option key={s} value={String(s)}>{s}×</option>)}
          </Select>
        </label>
        {state?.live && <Button appearance="subtle" onClick={() => playback.current?.goLive()}>Go to now</Button>}
        {state && !state.ready && <Spinner size="tiny" label="Loading" labelPosition="after" />}
      </div>
      <input type="range" aria-label="Position" aria-valuetext={formatDuration(wall - from)} className="position" min={0} max={Math.max(1, Math.round((to - from) / 1000))}
        value={Math.max(0, Math.round((wall - from) / 1000))} onChange={(e) => seek(from + Number(e.target.value) * 1000)} />
      <Lanes lanes={doc.lanes} from={from} to={to} wall={wall} drawn={drawn} names={nameOfLane} seek={seek}
        listening={(l) => l.kind === "audio" && (lane === "mixed" || lane === l.id)} />
      <Legend doc={doc} />
      {voices.length > 0 && (
        <fieldset className="listen">
          <legend>Listen to</legend>
          <RadioGroup layout="horizontal" value={lane} onChange={(_, d) => playback.current?.listen(d.value)}>
            <Radio value="mixed" label="Everybody" />
            {voices.map((l) => <Radio key={l.id} value={l.id} label={nameOfLane(l)} />)}
          </RadioGroup>
        </fieldset>
      )}
    </div>
  );
}

/** Which picture to show beside the sound, if there is one. */
function Pictures({ doc, show }: { doc: PlayerDocument; show: (video: HTMLVideoElement | null, playlist: string | null) => void }) {
  const lanes = doc.lanes.filter((l) => l.kind !== "audio");
  const video = useRef<HTMLVideoElement>(null);
  const [chosen, choose] = useState("");
  const name = (l: Lane) => `${l.kind}/${l.id}`;
  const lane = lanes.find((l) => name(l) === chosen) ?? lanes.find((l) => l.kind === "screen") ?? lanes[0];
  const playlist = lane?.playlist ?? null;
  const latest = useRef(show);
  latest.current = show;
  useEffect(() => {
    latest.current(video.current, playlist);
    return () => latest.current(null, null);
  }, [playlist]);
  if (!lane) return null;
  return (
    <div className="picture">
      {lanes.length > 1 && (
        <label>
          Picture{" "}
          <Select size="small" value={name(lane)} onChange={(_, d) => choose(d.value)}>
            {lanes.map((l) => <option key={name(l)} value={name(l)}>{nameOfLane(l)}, {l.kind === "screen" ? "screen" : "video"}</option>)}
          </Select>
        </label>
      )}
      <div className="frame">
        <span>Nothing is shown at this moment</span>
        <video ref={video} data-picture muted playsInline aria-label={`${nameOfLane(lane)}, ${lane.kind}`} />
      </div>
    </div>
  );
}

function Legend({ doc }: { doc: PlayerDocument }) {
  const kinds = [...new Set(doc.lanes.flatMap((l) => l.gaps.map((g) => g.kind)))].filter((k) => k !== "inactive");
  if (kinds.length === 0) return null;
  return <p className="sub legend">Hatched: {kinds.map((k) => gapNames[k].toLowerCase()).join(", ")}</p>;
}

const eventNames: Record<string, string> = {
  invited: "Recorder invited",
  established: "Call established",
  recording: "Recording announced and started",
  paused: "Recording paused",
  resumed: "Recording resumed",
  rule: "Recording rule",
  mode: "Audio",
  anomaly: "Anomaly",
  fault: "Fault",
  result: "Call ended",
  ended: "Recording ended",
};

/** Who was there when, and what happened to the recording. */
function History({ doc }: { doc: PlayerDocument }) {
  if (doc.people.length === 0 && doc.events.length === 0) return null;
  return (
    <div className="history">
      {doc.people.length > 0 && (
        <>
          <h2>Present</h2>
          <ul>
            {doc.people.map((p) => (
              <li key={p.kind + p.id}>
                <strong>{p.name || p.id || p.kind}</strong>{" "}
                <span className="sub">
                  {p.present.length === 0 ? (p.lobby ? "never left the lobby" : "") : p.present.map((i) => `${formatTime(i.from)} to ${i.to ? formatTime(i.to) : "the end"}`).join(", ")}
                </span>
              </li>
            ))}
          </ul>
        </>
      )}
      {doc.events.length > 0 && (
        <>
          <h2>What happened</h2>
          <ol>
            {doc.events.map((e, i) => (
              <li key={i}>
                <time dateTime={e.at}>{formatTime(e.at)}</time> {eventNames[e.kind] ?? e.kind}{e.reason ? `: ${e.reason}` : ""}{e.actor ? ` (by ${e.actorName || e.actor})` : ""}
              </li>
            ))}
          </ol>
        </>
      )}
    </div>
  );
}

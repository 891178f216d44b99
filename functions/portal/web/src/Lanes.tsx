import { useMemo, useRef } from "react";
import type { Gap, Lane } from "./api-types";
import { formatTime } from "./words";

/** What finalize drew of one track: a byte for each tenth of a second. */
export interface Drawn {
  from: number; // milliseconds since 1970
  perSecond: number;
  peaks: Uint8Array;
}

export const gapNames: Record<Gap["kind"], string> = {
  lost: "Lost",
  inactive: "Silent",
  muted: "Muted",
  held: "On hold",
  absent: "Not connected",
  paused: "Recording paused",
  policy: "Not recorded by rule",
};

/** Gaps that matter to a reader at a glance; silence does not. */
const shown: Gap["kind"][] = ["lost", "paused", "policy", "held", "muted", "absent"];

const width = 1000;
const height = 48;

interface LanesProps {
  lanes: Lane[];
  from: number;
  to: number;
  wall: number;
  drawn: Map<string, Drawn>;
  names: (l: Lane) => string;
  listening: (l: Lane) => boolean;
  seek: (wall: number) => void;
}

/** A lane for each party: what was heard and seen when, with its gaps, and where playback stands. */
export function Lanes({ lanes, from, to, wall, drawn, names, listening, seek }: LanesProps) {
  const span = Math.max(1, to - from);
  const x = (t: number) => (Math.min(Math.max(t, from), to) - from) / span * width;
  const at = Math.min(100, Math.max(0, (wall - from) / span * 100));
  return (
    <div className="lanes" data-lanes={lanes.length}>
      <svg width="0" height="0" aria-hidden="true">
        <defs>
          <pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
            <line x1="0" y1="0" x2="0" y2="6" className="hatch" />
          </pattern>
          <pattern id="hatch-lost" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
            <line x1="0" y1="0" x2="0" y2="6" className="hatch lost" />
          </pattern>
        </defs>
      </svg>
      <ol>
        {lanes.map((l) => (
          <li key={l.kind + l.id} className={listening(l) ? "lane on" : "lane"} data-lane={l.id} data-kind={l.kind}>
            <span className="label" title={names(l)}>{names(l)}<span className="sub">{l.kind === "audio" ? "" : l.kind === "screen" ? " screen" : " video"}</span></span>
            <Track lane={l} x={x} drawn={l.tracks.map((t) => drawn.get(t)).filter((d) => d !== undefined)} from={from} span={span} seek={seek} />
            <Gaps lane={l} />
          </li>
        ))}
      </ol>
      <div className="playhead" aria-hidden="true"><span style={{ left: `${at}%` }} /></div>
    </div>
  );
}

interface TrackProps {
  lane: Lane;
  x: (t: number) => number;
  drawn: Drawn[];
  from: number;
  span: number;
  seek: (wall: number) => void;
}

/** The drawing takes a click; the slider above it does the same for the keyboard. */
function Track({ lane, x, drawn, from, span, seek }: TrackProps) {
  const ref = useRef<SVGSVGElement>(null);
  const shape = useMemo(() => drawn.map((d) => outline(d, from, span)).join(""), [drawn, from, span]);
  const start = x(Date.parse(lane.from));
  const end = x(Date.parse(lane.to));
  return (
    <svg
      ref={ref}
      className="track"
      viewBox={`0 0 ${width} ${height}`}
      preserveAspectRatio="none"
      aria-hidden="true"
      onClick={(e) => {
        const box = ref.current!.getBoundingClientRect();
        seek(from + (e.clientX - box.left) / box.width * span);
      }}
    >
      <rect x={start} y="0" width={Math.max(1, end - start)} height={height} className="present" />
      {shape ? <path d={shape} className="wave" /> : <rect x={start} y={height / 2 - 3} width={Math.max(1, end - start)} height="6" className="wave" />}
      {lane.gaps.filter((g) => shown.includes(g.kind)).map((g) => (
        <rect key={g.from + g.kind} data-gap={g.kind} x={x(Date.parse(g.from))} y="0" width={Math.max(1.5, x(Date.parse(g.to)) - x(Date.parse(g.from)))} height={height}
          fill={g.kind === "lost" ? "url(#hatch-lost)" : "url(#hatch)"} />
      ))}
    </svg>
  );
}

/** The outline of a track's peaks, as many points as there are pixels. */
function outline(d: Drawn, from: number, span: number): string {
  const tenth = 1000 / d.perSecond;
  const perPoint = Math.max(1, Math.floor(span / tenth / width));
  const up: string[] = [];
  const down: string[] = [];
  for (let i = 0; i < d.peaks.length; i += perPoint) {
    let loud = 0;
    for (let j = i; j < Math.min(i + perPoint, d.peaks.length); j++) loud = Math.max(loud, d.peaks[j] ?? 0);
    const px = ((d.from + i * tenth - from) / span * width).toFixed(1);
    const py = loud / 255 * (height / 2 - 2);
    up.push(`${px} ${(height / 2 - py).toFixed(1)}`);
    down.push(`${px} ${(height / 2 + py).toFixed(1)}`);
  }
  if (up.length === 0) return "";
  return `M${up.join("L")}L${down.reverse().join("L")}Z`;
}

/** The gaps as text, for those who do not see the drawing. */
function Gaps({ lane }: { lane: Lane }) {
  const list = lane.gaps.filter((g) => shown.includes(g.kind)).slice(0, 50);
  if (list.length === 0) return null;
  return (
    <ul className="hidden">
      {list.map((g) => <li key={g.from + g.kind}>{gapNames[g.kind]} from {formatTime(g.from)} to {formatTime(g.to)}{g.reason ? `: ${g.reason}` : ""}</li>)}
    </ul>
  );
}

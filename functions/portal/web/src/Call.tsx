import { MessageBar, MessageBarBody, MessageBarTitle, Select } from "@fluentui/react-components";
import { lazy, Suspense, useState } from "react";
import { Link } from "wouter";
import type { CallFacts, ConversationDetail, Leg } from "./api-types";
import { usePortal } from "./loading";
import { Written } from "./Occurrence";
import { Busy } from "./states";
import { directionNames, formatDateTime, formatDuration, nameOf, outcomeNames, plural, titleOf } from "./words";

// The player and hls.js come with the first call that is opened.
const Player = lazy(() => import("./Player"));

/** A call: its legs, the player of one of them, and what is known about it. */
export function Call({ detail, call }: { detail: ConversationDetail; call: CallFacts }) {
  const legs = detail.legs ?? [];
  const [chosen, choose] = useState(legs[0]?.leg ?? "");
  const leg = legs.find((l) => l.leg === chosen) ?? legs[0];
  return (
    <>
      <h1>{call.subject || titleOf(detail, 4)}</h1>
      <p className="lead">{directionNames[call.direction]} · {formatDateTime(detail.first)}{call.running ? " · running" : ""}</p>
      {call.outcome === "lost" && (
        <MessageBar intent="error" layout="multiline">
          <MessageBarBody><MessageBarTitle>Part of this call is missing.</MessageBarTitle> The hatched stretches below say what and when.</MessageBarBody>
        </MessageBar>
      )}
      <div className="conversation">
        <section aria-label="Recording">
          {legs.length > 1 && <LegPicker legs={legs} chosen={leg?.leg ?? ""} choose={choose} />}
          {leg && (
            <Suspense fallback={<Busy label="Opening the player" />}>
              <Player key={leg.leg} conversation={detail.id} leg={leg} />
            </Suspense>
          )}
          {leg && <Written detail={detail} />}
          {!leg && <p role="status">There is no recording of this call that is yours to play.</p>}
        </section>
        <Facts detail={detail} call={call} />
      </div>
    </>
  );
}

function LegPicker({ legs, chosen, choose }: { legs: Leg[]; chosen: string; choose: (leg: string) => void }) {
  const { people } = usePortal();
  return (
    <label className="legs">
      Recording of{" "}
      <Select value={chosen} onChange={(_, d) => choose(d.value)}>
        {legs.map((l) => (
          <option key={l.leg} value={l.leg}>
            {l.recorded.name || nameOf(people, l.recorded.id)}{l.copyOf ? " (second copy)" : ""}{l.outcome ? `, ${outcomeNames[l.outcome]}` : ", running"}
          </option>
        ))}
      </Select>
    </label>
  );
}

function Facts({ detail, call }: { detail: ConversationDetail; call: CallFacts }) {
  const { people } = usePortal();
  return (
    <aside className="facts" aria-label="About this conversation">
      <h2>About</h2>
      <dl>
        <div><dt>Began</dt><dd><time dateTime={detail.first} title={`${detail.first} (UTC)`}>{formatDateTime(detail.first)}</time></dd></div>
        {!call.running && <div><dt>Lasted</dt><dd>{formatDuration(Date.parse(detail.last) - Date.parse(detail.first))}</dd></div>}
        <div><dt>Direction</dt><dd>{directionNames[call.direction]}</dd></div>
        <div><dt>State</dt><dd>{call.running ? "Running" : call.outcome ? outcomeNames[call.outcome] : ""}</dd></div>
        {call.numbers && call.numbers.length > 0 && <div><dt>Telephone numbers</dt><dd>{call.numbers.join(", ")}</dd></div>}
        <div><dt>Recorded because of</dt><dd>{(detail.custodians ?? []).map((id) => nameOf(people, id)).join(", ")}</dd></div>
        <div><dt>Participants</dt><dd>{(detail.participants ?? []).map((p) => p.name || p.id).join(", ") || "Nobody"}</dd></div>
        <div><dt>Recordings</dt><dd>{plural(call.legs, "leg")}</dd></div>
        {call.previous && <div><dt>Transferred from</dt><dd><Link href={`/conversations/${call.previous}`}>the call before</Link></dd></div>}
        <div><dt>Call chain</dt><dd className="mono">{call.chain}</dd></div>
      </dl>
    </aside>
  );
}

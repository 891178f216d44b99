import { Badge, Button, MessageBar, MessageBarBody } from "@fluentui/react-components";
import { useCallback, useEffect, useMemo, useState } from "react";
import { Link } from "wouter";
import type { CaptureGap, Coverage, CoverageDay, CoverageLine, CoverageTotal } from "./api-types";
import { asApiError, useLoading, usePortal } from "./loading";
import { Busy, Failure, Notice, refusal } from "./states";
import { calledIn, codeNames, formatDateTime, formatDuration, modalityNames, plural } from "./words";

const utcDay = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeZone: "UTC" });
const dayName = (day: string) => utcDay.format(new Date(`${day}T00:00:00Z`));

/** What was expected and what was captured, day by day. */
export function CoveragePage() {
  const { api, signIn } = usePortal();
  useEffect(() => {
    document.title = "Coverage - Steno";
  }, []);
  const { data, error, again } = useLoading(useCallback((signal: AbortSignal) => api.get("/coverage", {}, signal), [api]));
  return (
    <>
      <h1>Coverage</h1>
      <p className="lead">
        What was expected of each recorded user, and what became of it: captured, excluded by a rule, failed, or not known yet. Every statement is signed and bound in the custody log.
      </p>
      {error ? <Failure error={error} again={again} signIn={signIn} /> : !data ? <Busy label="Reading the statements" /> : data.days.length === 0 ? (
        <Notice title="No statements yet">
          <p>The first one is made some hours after the first day on which anybody is recorded has ended.</p>
        </Notice>
      ) : (
        <table className="grid" role="table">
          <thead role="rowgroup">
            <tr role="row">
              <th role="columnheader" scope="col">Day (UTC)</th>
              <th role="columnheader" scope="col">State</th>
              <th role="columnheader" scope="col">Written</th>
              <th role="columnheader" scope="col">Calls</th>
            </tr>
          </thead>
          <tbody role="rowgroup">{data.days.map((d) => <Day key={d.day} day={d} />)}</tbody>
        </table>
      )}
    </>
  );
}

function Day({ day: d }: { day: CoverageDay }) {
  const of = (unit: CoverageTotal["unit"]) => d.totals.filter((t) => t.unit === unit);
  return (
    <tr role="row">
      <th role="rowheader" scope="row">
        <Link href={`/coverage/${d.day}`}>{dayName(d.day)}</Link>
        <span className="sub">Statement {d.revision}, made {formatDateTime(d.madeAt)}</span>
      </th>
      <td role="cell" data-label="State"><State day={d} /></td>
      <td role="cell" data-label="Written">
        {of("seconds").map((t) => <span className="stacked" key={t.modality}>{sentence(t)}</span>)}
        {of("versions").map((t) => <span className="sub" key={t.modality}>{sentence(t)}</span>)}
      </td>
      <td role="cell" data-label="Calls">{of("stays").map((t) => sentence(t)).join(" ") || "None"}</td>
    </tr>
  );
}

function State({ day: d }: { day: CoverageDay }) {
  const failed = d.totals.some((t) => t.failed > 0) || d.secondPass.late > 0 || d.canary === "missing";
  return (
    <span className="badges">
      {failed ? <Badge appearance="tint" color="danger">Something is missing</Badge>
        : d.whole ? <Badge appearance="tint" color="success">Nothing is missing</Badge>
        : <Badge appearance="tint" color="warning">Not all is known</Badge>}
      {!d.complete && <Badge appearance="tint" color="subtle">The day goes on</Badge>}
      {d.canary === "missing" && <Badge appearance="tint" color="danger">Canary not captured</Badge>}
      {d.secondPass.late > 0 && <Badge appearance="tint" color="danger">{plural(d.secondPass.late, "version")} found late</Badge>}
    </span>
  );
}

const hours = (seconds: number) => `${(seconds / 3600).toLocaleString(undefined, { maximumFractionDigits: 1 })} h`;

/** A count in words. */
function sentence(t: CoverageTotal | CoverageLine): string {
  const n = (v: number) => (t.unit === "seconds" ? hours(v) : v.toLocaleString());
  switch (t.unit) {
    case "seconds":
      return `${modalityNames[t.modality]}: ${n(t.captured)} of ${n(t.expected)} read.`;
    case "versions":
      return `${modalityNames[t.modality]}: ${n(t.captured)} of ${n(t.expected)} message versions.`;
    case "items":
      return `${n(t.captured)} of ${n(t.expected)} files.`;
    default:
      return `${n(t.captured)} of ${n(t.expected)} recorded${t.excluded ? `, ${n(t.excluded)} excluded` : ""}.`;
  }
}

/** The newest statement of a day, custodian by custodian. */
export function CoverageDayPage({ day }: { day: string }) {
  const { api, signIn } = usePortal();
  useEffect(() => {
    document.title = `Coverage of ${day} - Steno`;
  }, [day]);
  const { data, error, again } = useLoading(useCallback((signal: AbortSignal) => api.get("/coverage/{day}", { path: { day } }, signal), [api, day]));
  return (
    <>
      <p className="crumb"><Link href="/coverage">Coverage</Link></p>
      <h1>{/^\d{4}-\d{2}-\d{2}$/.test(day) ? `${dayName(day)} (UTC)` : "Coverage"}</h1>
      {error ? <Failure error={error} again={again} signIn={signIn} /> : !data ? <Busy label="Reading the statement" /> : <Whole statement={data} />}
    </>
  );
}

function Whole({ statement: s }: { statement: Coverage }) {
  const { people } = usePortal();
  const [all, setAll] = useState(false);
  const open = useMemo(() => s.lines.filter((l) => l.failed > 0 || l.unknown > 0), [s]);
  const lines = all ? s.lines : open;
  return (
    <>
      <div className="actions above">
        <State day={s} />
        <span className="sub">From {formatDateTime(s.from)} to {formatDateTime(s.to)}; statement {s.revision}, made {formatDateTime(s.madeAt)}.</span>
        {s.signed && <Signed day={s.day} revision={s.revision} />}
      </div>
      <table className="grid" role="table" aria-label="Totals">
        <Head first="Total of" />
        <tbody role="rowgroup">{s.totals.map((t) => <Counts key={t.modality + t.unit} name={`${modalityNames[t.modality]}, ${unitNames[t.unit]}`} line={t} />)}</tbody>
      </table>
      {s.gaps.length > 0 && <Gaps gaps={s.gaps} named={s.people} />}
      <h2>By custodian</h2>
      <div className="actions above">
        <span role="status">{open.length === 0 ? "Nothing failed and nothing is open." : `${plural(open.length, "line")} of ${s.lines.length.toLocaleString()} with something that failed or is open.`}</span>
        {s.lines.length > open.length && <Button size="small" aria-pressed={all} onClick={() => setAll(!all)}>{all ? "Show only these" : "Show all"}</Button>}
      </div>
      {lines.length > 0 && (
        <table className="grid" role="table" aria-label="By custodian">
          <Head first="Custodian" />
          <tbody role="rowgroup">
            {lines.map((l) => <Counts key={l.custodian + l.modality + l.unit} name={calledIn(s.people, people, l.custodian)} sub={`${l.team ? "Team, " : ""}${l.desks.join(", ")}: ${modalityNames[l.modality]}, ${unitNames[l.unit]}`} line={l} />)}
          </tbody>
        </table>
      )}
      <h2>What no statement can speak of</h2>
      <ul>{s.blindSpots.map((b) => <li key={b.code}>{b.text}</li>)}</ul>
    </>
  );
}

const unitNames: Record<CoverageTotal["unit"], string> = { seconds: "time", versions: "message versions", items: "files", stays: "stays in calls" };

function Head({ first }: { first: string }) {
  return (
    <thead role="rowgroup">
      <tr role="row">
        <th role="columnheader" scope="col">{first}</th>
        {["Expected", "Captured", "Excluded", "Failed", "Unknown"].map((n) => <th role="columnheader" scope="col" className="number" key={n}>{n}</th>)}
        <th role="columnheader" scope="col">Why</th>
      </tr>
    </thead>
  );
}

function Counts({ name, sub, line: l }: { name: string; sub?: string; line: CoverageTotal | CoverageLine }) {
  const n = (v: number) => (l.unit === "seconds" ? hours(v) : v.toLocaleString());
  return (
    <tr role="row">
      <th role="rowheader" scope="row">{name}{sub && <span className="sub">{sub}</span>}</th>
      <td role="cell" className="number" data-label="Expected">{n(l.expected)}</td>
      <td role="cell" className="number" data-label="Captured">{n(l.captured)}</td>
      <td role="cell" className="number" data-label="Excluded">{n(l.excluded)}</td>
      <td role="cell" className="number" data-label="Failed">{n(l.failed)}</td>
      <td role="cell" className="number" data-label="Unknown">{l.unit === "seconds" && l.unknown < 3600 ? formatDuration(l.unknown * 1000) : n(l.unknown)}</td>
      <td role="cell" data-label="Why">{(l.reasons ?? []).map((r) => `${codeNames[r.code] ?? r.code}${l.unit === "seconds" ? "" : ` (${r.count.toLocaleString()})`}`).join(", ")}</td>
    </tr>
  );
}

/** Stays in calls that were not captured, and those that were healed since. */
function Gaps({ gaps, named }: { gaps: CaptureGap[]; named: Coverage["people"] }) {
  const { people, session } = usePortal();
  return (
    <>
      <h2>Capture gaps in calls</h2>
      <table className="grid" role="table" aria-label="Capture gaps in calls">
        <thead role="rowgroup">
          <tr role="row">
            <th role="columnheader" scope="col">Who</th>
            <th role="columnheader" scope="col">When</th>
            <th role="columnheader" scope="col">What is missing</th>
            <th role="columnheader" scope="col">Recording</th>
          </tr>
        </thead>
        <tbody role="rowgroup">
          {gaps.map((g) => (
            <tr role="row" key={g.person + g.from}>
              <th role="rowheader" scope="row">{calledIn(named, people, g.person)}</th>
              <td role="cell" data-label="When">{formatDateTime(g.from)}, for {formatDuration(Date.parse(g.to) - Date.parse(g.from))}</td>
              <td role="cell" data-label="What is missing">
                {g.healed ? `Healed ${formatDateTime(g.healed)}: a recording came late.` : `${codeNames[g.code ?? ""] ?? g.code}, ${formatDuration(g.missingMs)}`}
              </td>
              <td role="cell" data-label="Recording">{g.conversation && (session.seesContent ? <Link href={`/conversations/${g.conversation}`}>Open</Link> : <span className="mono">{g.conversation}</span>)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </>
  );
}

/** The statement as it was signed, and the signature, for whoever trusts nobody. */
function Signed({ day, revision }: { day: string; revision: number }) {
  const { api } = usePortal();
  const [failed, setFailed] = useState("");
  const take = async (part: "statement" | "signature") => {
    setFailed("");
    try {
      const url = URL.createObjectURL(new Blob([await api.statement(day, part)], { type: "application/octet-stream" }));
      const a = document.createElement("a");
      a.href = url;
      a.download = `coverage-${day}-${revision}.${part === "statement" ? "json" : "sig"}`;
      a.click();
      URL.revokeObjectURL(url);
    } catch (e) {
      const error = asApiError(e);
      if (error) setFailed(refusal(error));
    }
  };
  return (
    <>
      <Button size="small" onClick={() => void take("statement")}>Download the statement</Button>
      <Button size="small" onClick={() => void take("signature")}>Download its signature</Button>
      {failed && <MessageBar intent="error"><MessageBarBody>{failed}</MessageBarBody></MessageBar>}
    </>
  );
}

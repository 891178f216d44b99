import { Badge, Button, Combobox, Field, Input, MessageBar, MessageBarBody, Option } from "@fluentui/react-components";
import { useCallback, useEffect, useState } from "react";
import type { Lookback, Named } from "./api-types";
import { asApiError, useLoading, usePortal } from "./loading";
import { Busy, Failure, Notice, refusal } from "./states";
import { calledIn, daysAgo, formatDateTime, plural } from "./words";

const states: Record<Lookback["state"], { name: string; color: "success" | "warning" | "subtle" | "danger" }> = {
  queued: { name: "Queued", color: "warning" },
  running: { name: "Running", color: "warning" },
  done: { name: "Done", color: "success" },
  canceled: { name: "Canceled", color: "subtle" },
  refused: { name: "Refused", color: "danger" },
};

/** Look-backs: history that somebody had read after the fact, why, and how far it has come. */
export function LookbacksPage() {
  const { api, signIn, session } = usePortal();
  useEffect(() => {
    document.title = "Look-backs - Steno";
  }, []);
  const { data, error, again } = useLoading(useCallback((signal: AbortSignal) => api.get("/lookbacks", {}, signal), [api]));
  const waiting = data?.lookbacks.some((j) => j.state === "queued" || j.state === "running") ?? false;
  useEffect(() => {
    if (!waiting) return;
    const timer = window.setTimeout(again, 5000);
    return () => window.clearTimeout(timer);
  }, [waiting, again, data]);
  const officer = session.roles.includes("complianceOfficer");
  return (
    <>
      <h1>Look-backs</h1>
      <p className="lead">A look-back reads what recorded people and teams wrote before they were recorded, or reads a stretch again. What is in the archive already is not stored twice.</p>
      {officer && <Start started={again} />}
      {error ? (
        <Failure error={error} again={again} signIn={signIn} />
      ) : !data ? (
        <Busy label="Reading the look-backs" />
      ) : data.lookbacks.length === 0 ? (
        <Notice title="No look-backs"><p>Nobody has asked for history yet.</p></Notice>
      ) : (
        <table className="grid exports" role="table" aria-label="Look-backs">
          <thead role="rowgroup">
            <tr role="row">
              <th role="columnheader" scope="col">Reason</th>
              <th role="columnheader" scope="col">Came to</th>
              <th role="columnheader" scope="col">State</th>
            </tr>
          </thead>
          <tbody role="rowgroup">
            {data.lookbacks.map((j) => <Row key={j.id} job={j} named={data.people} changed={again} cancel={officer} />)}
          </tbody>
        </table>
      )}
    </>
  );
}

function Start({ started }: { started: () => void }) {
  const { api, people } = usePortal();
  const [open, setOpen] = useState(false);
  const [who, setWho] = useState("");
  const [typed, setTyped] = useState("");
  const [from, setFrom] = useState(daysAgo(30));
  const [to, setTo] = useState(daysAgo(0));
  const [reason, setReason] = useState("");
  const [busy, setBusy] = useState(false);
  const [failed, setFailed] = useState("");
  if (!open) return <div className="actions above"><Button appearance="primary" onClick={() => setOpen(true)}>Start a look-back</Button></div>;
  const offered = people.filter((p) => (p.name || p.id).toLowerCase().includes(typed.toLowerCase())).slice(0, 50);
  const submit = async () => {
    setBusy(true);
    setFailed("");
    try {
      const team = people.find((p) => p.id === who)?.team ?? false;
      const stretch = { from: `${from}T00:00:00Z`, to: `${to}T00:00:00Z`, reason: reason.trim() };
      await api.post("/lookbacks", { body: team ? { teams: [who], ...stretch } : { users: [who], ...stretch } });
      setOpen(false);
      setReason("");
      started();
    } catch (e) {
      const error = asApiError(e);
      if (error) setFailed(refusal(error));
    } finally {
      setBusy(false);
    }
  };
  return (
    <form
      className="panel"
      aria-label="Start a look-back"
      onSubmit={(e) => {
        e.preventDefault();
        void submit();
      }}
    >
      <h2>Start a look-back</h2>
      <Field label="Recorded user or team" required>
        <Combobox
          value={typed}
          selectedOptions={who ? [who] : []}
          onChange={(e) => {
            setTyped(e.target.value);
            setWho("");
          }}
          onOptionSelect={(_, d) => {
            setWho(d.optionValue ?? "");
            setTyped(d.optionText ?? "");
          }}
        >
          {offered.map((p) => <Option key={p.id} value={p.id} text={p.name || p.id}>{p.team ? `${p.name || p.id} (team)` : p.name || p.id}</Option>)}
          {offered.length === 0 && <Option disabled text="">Nobody by this name</Option>}
        </Combobox>
      </Field>
      <Field label="From" required hint="Midnight UTC; at most 31 days in one look-back">
        <Input type="date" value={from} onChange={(_, d) => setFrom(d.value)} />
      </Field>
      <Field label="To" required hint="Midnight UTC; the day itself is not read">
        <Input type="date" value={to} onChange={(_, d) => setTo(d.value)} />
      </Field>
      <Field label="Reason" required hint="At least 10 characters">
        <Input value={reason} maxLength={500} onChange={(_, d) => setReason(d.value)} />
      </Field>
      {failed && <MessageBar intent="error"><MessageBarBody>{failed}</MessageBarBody></MessageBar>}
      <div className="actions">
        <Button type="submit" appearance="primary" disabled={busy || !who || !from || !to || reason.trim().length < 10}>Start</Button>
        <Button onClick={() => setOpen(false)} disabled={busy}>Close</Button>
      </div>
    </form>
  );
}

function Row({ job: j, named, changed, cancel }: { job: Lookback; named: Named[]; changed: () => void; cancel: boolean }) {
  const { people, session } = usePortal();
  const state = states[j.state];
  const asker = !j.requestedBy ? "the system" : j.requestedBy === session.person ? "you" : calledIn(named, people, j.requestedBy);
  return (
    <tr role="row">
      <th role="rowheader" scope="row">
        {j.reason || "A message that could not be read"}
        <span className="sub">Asked for by {asker}, <time dateTime={j.madeAt}>{formatDateTime(j.madeAt)}</time></span>
        {j.reason && <span className="sub">{plural(j.custodians, "custodian")}, <time dateTime={j.from}>{formatDateTime(j.from)}</time> to <time dateTime={j.to}>{formatDateTime(j.to)}</time></span>}
      </th>
      <td role="cell" data-label="Came to">
        {j.state === "refused" ? "Nothing was read" : <>{j.new.toLocaleString()} new of {j.returned.toLocaleString()} returned</>}
        {j.unclear > 0 && <span className="sub">{plural(j.unclear, "unclear item")}</span>}
        {j.failed > 0 && <span className="sub">{plural(j.failed, "window")} could not be read</span>}
      </td>
      <td role="cell" data-label="State">
        <Badge appearance="tint" color={state.color}>{state.name}</Badge>
        {j.windows > 0 && <span className="sub">{j.finished.toLocaleString()} of {plural(j.windows, "window")}</span>}
        {j.refusal && <span className="sub">{j.refusal}</span>}
        {cancel && (j.state === "queued" || j.state === "running") && <Cancel job={j} canceled={changed} />}
      </td>
    </tr>
  );
}

function Cancel({ job: j, canceled }: { job: Lookback; canceled: () => void }) {
  const { api } = usePortal();
  const [busy, setBusy] = useState(false);
  const [failed, setFailed] = useState("");
  const end = async () => {
    setBusy(true);
    setFailed("");
    try {
      await api.post("/lookbacks/{lookback}/cancel", { path: { lookback: j.id }, body: {} });
      canceled();
    } catch (e) {
      const error = asApiError(e);
      if (error) setFailed(refusal(error));
    } finally {
      setBusy(false);
    }
  };
  return (
    <div className="actions">
      <Button size="small" disabled={busy} aria-label={`Cancel the look-back: ${j.reason}`} onClick={() => void end()}>Cancel</Button>
      {failed && <MessageBar intent="error"><MessageBarBody>{failed}</MessageBarBody></MessageBar>}
    </div>
  );
}

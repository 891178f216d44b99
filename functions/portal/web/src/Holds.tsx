import { Badge, Button, Combobox, Field, Input, MessageBar, MessageBarBody, Option, Textarea } from "@fluentui/react-components";
import { useCallback, useEffect, useState } from "react";
import { Link } from "wouter";
import type { Matter, Named } from "./api-types";
import { asApiError, useLoading, usePortal } from "./loading";
import { Busy, Failure, Notice, refusal } from "./states";
import { calledIn, formatDate, formatDateTime, nameOf, plural } from "./words";

const states: Record<Matter["state"], { name: string; color: "success" | "warning" | "subtle" }> = {
  placed: { name: "Holds", color: "success" },
  releaseRequested: { name: "Holds, release asked for", color: "warning" },
  released: { name: "Released, grace period", color: "warning" },
  lifted: { name: "Lifted", color: "subtle" },
};

/** Legal holds: what must not be disposed or erased, and until who agrees. */
export function HoldsPage() {
  const { api, signIn, session } = usePortal();
  useEffect(() => {
    document.title = "Legal holds - Steno";
  }, []);
  const { data, error, again } = useLoading(useCallback((signal: AbortSignal) => api.get("/matters", {}, signal), [api]));
  const officer = session.roles.includes("complianceOfficer");
  return (
    <>
      <h1>Legal holds</h1>
      <p className="lead">A hold overrides every policy: nothing it covers is disposed or erased. Its release takes a second compliance officer, and leaves a grace period.</p>
      {officer && <Place placed={again} />}
      {error ? (
        <Failure error={error} again={again} signIn={signIn} />
      ) : !data ? (
        <Busy label="Reading the holds" />
      ) : data.matters.length === 0 ? (
        <Notice title="No legal holds"><p>Nothing is held. What is due under its policy is disposed.</p></Notice>
      ) : (
        <table className="grid holds" role="table">
          <thead role="rowgroup">
            <tr role="row">
              <th role="columnheader" scope="col">Matter</th>
              <th role="columnheader" scope="col">Covers</th>
              <th role="columnheader" scope="col">State</th>
            </tr>
          </thead>
          <tbody role="rowgroup">
            {data.matters.map((m) => <Row key={m.id} matter={m} named={data.people} officer={officer} changed={again} />)}
          </tbody>
        </table>
      )}
    </>
  );
}

/** Does one change at a time, and keeps what was said about it. */
function useChange() {
  const [busy, setBusy] = useState(false);
  const [failed, setFailed] = useState("");
  const run = useCallback(async (work: () => Promise<void>) => {
    setBusy(true);
    setFailed("");
    try {
      await work();
    } catch (e) {
      const error = asApiError(e);
      if (error) setFailed(refusal(error));
    } finally {
      setBusy(false);
    }
  }, []);
  return { busy, failed, run };
}

function Place({ placed }: { placed: () => void }) {
  const { api, people } = usePortal();
  const [open, setOpen] = useState(false);
  const [title, setTitle] = useState("");
  const [custodians, setCustodians] = useState<string[]>([]);
  const [conversations, setConversations] = useState("");
  const [typed, setTyped] = useState("");
  const { busy, failed, run } = useChange();
  if (!open) return <div className="actions above"><Button appearance="primary" onClick={() => setOpen(true)}>Place a hold</Button></div>;
  const ids = conversations.split(/[\s,]+/).filter(Boolean);
  const wanted = typed.toLocaleLowerCase();
  const offered = people.filter((p) => !wanted || `${p.name} ${p.address}`.toLocaleLowerCase().includes(wanted)).slice(0, 100);
  const submit = () =>
    run(async () => {
      await api.post("/matters", { body: { title: title.trim(), custodians, conversations: ids } });
      setOpen(false);
      setTitle("");
      setCustodians([]);
      setConversations("");
      placed();
    });
  return (
    <form
      className="panel"
      aria-label="Place a hold"
      onSubmit={(e) => {
        e.preventDefault();
        void submit();
      }}
    >
      <h2>Place a hold</h2>
      <Field label="Matter" required hint="How you refer to it. It is not part of the log.">
        <Input value={title} maxLength={200} onChange={(_, d) => setTitle(d.value)} />
      </Field>
      <Field label="Custodians" hint={custodians.length > 0 ? custodians.map((id) => nameOf(people, id)).join(", ") : "Recorded users whose conversations are held, those to come included"}>
        <Combobox
          multiselect
          value={typed}
          selectedOptions={custodians}
          onChange={(e) => setTyped(e.target.value)}
          onBlur={() => setTyped("")}
          onOptionSelect={(_, d) => {
            setTyped("");
            setCustodians(d.selectedOptions);
          }}
        >
          {offered.map((p) => <Option key={p.id} value={p.id} text={p.name || p.id}>{p.name || p.id}</Option>)}
        </Combobox>
      </Field>
      <Field label="Conversations" hint="Ids, one a line">
        <Textarea value={conversations} onChange={(_, d) => setConversations(d.value)} />
      </Field>
      {failed && <MessageBar intent="error"><MessageBarBody>{failed}</MessageBarBody></MessageBar>}
      <div className="actions">
        <Button type="submit" appearance="primary" disabled={busy || !title.trim() || custodians.length + ids.length === 0}>Place hold</Button>
        <Button onClick={() => setOpen(false)} disabled={busy}>Cancel</Button>
      </div>
    </form>
  );
}

function Row({ matter: m, named, officer, changed }: { matter: Matter; named: Named[]; officer: boolean; changed: () => void }) {
  const { people } = usePortal();
  const state = states[m.state];
  const custodians = m.custodians ?? [];
  const conversations = m.conversations ?? [];
  return (
    <tr role="row">
      <th role="rowheader" scope="row">
        {m.title}
        <span className="sub">
          Placed by {calledIn(named, people, m.placedBy)}, <time dateTime={m.placedAt}>{formatDateTime(m.placedAt)}</time>
        </span>
        <span className="sub mono">{m.id}</span>
      </th>
      <td role="cell" data-label="Covers">
        <ul className="plain">
          {custodians.map((id) => <li key={id}>{calledIn(named, people, id)}</li>)}
          {conversations.slice(0, 5).map((id) => <li key={id}><Link href={`/conversations/${id}`} className="mono">{id}</Link></li>)}
          {conversations.length > 5 && <li>and {plural(conversations.length - 5, "more conversation")}</li>}
        </ul>
        {(m.from || m.to) && <span className="sub">{m.from ? `from ${formatDate(m.from)} ` : ""}{m.to ? `to ${formatDate(m.to)}` : ""}</span>}
      </td>
      <td role="cell" data-label="State">
        <Badge appearance="tint" color={state.color}>{state.name}</Badge>
        {m.releasedAt && <span className="sub">Released <time dateTime={m.releasedAt}>{formatDateTime(m.releasedAt)}</time></span>}
        {officer && m.state === "placed" && <Release matter={m} changed={changed} />}
        {m.state === "releaseRequested" && <span className="sub"><Link href="/approvals">Waits for a second person</Link></span>}
      </td>
    </tr>
  );
}

function Release({ matter, changed }: { matter: Matter; changed: () => void }) {
  const { api } = usePortal();
  const [open, setOpen] = useState(false);
  const [reason, setReason] = useState("");
  const { busy, failed, run } = useChange();
  if (!open) {
    return <div className="actions"><Button size="small" aria-label={`Ask for the release of ${matter.title}`} onClick={() => setOpen(true)}>Ask for release</Button></div>;
  }
  const submit = () =>
    run(async () => {
      await api.post("/matters/{matter}/release", { path: { matter: matter.id }, body: { reason: reason.trim() } });
      changed();
    });
  return (
    <form
      aria-label={`Ask for the release of ${matter.title}`}
      onSubmit={(e) => {
        e.preventDefault();
        void submit();
      }}
    >
      <Field label="Reason" required hint="At least 10 characters. A second compliance officer reads it.">
        <Input value={reason} maxLength={500} onChange={(_, d) => setReason(d.value)} />
      </Field>
      {failed && <MessageBar intent="error"><MessageBarBody>{failed}</MessageBarBody></MessageBar>}
      <div className="actions">
        <Button type="submit" size="small" appearance="primary" disabled={busy || reason.trim().length < 10}>Ask for release</Button>
        <Button size="small" onClick={() => setOpen(false)} disabled={busy}>Cancel</Button>
      </div>
    </form>
  );
}

import { Badge, Button, Field, Input, MessageBar, MessageBarBody, Textarea } from "@fluentui/react-components";
import { useCallback, useEffect, useState } from "react";
import { Link, useSearchParams } from "wouter";
import type { Export, Named } from "./api-types";
import { asApiError, useLoading, usePortal } from "./loading";
import { Busy, Failure, Notice, refusal } from "./states";
import { calledIn, formatDateTime, plural } from "./words";

const states: Record<Export["state"], { name: string; color: "success" | "warning" | "subtle" | "danger" }> = {
  requested: { name: "Waits for a second person", color: "warning" },
  approved: { name: "Waits to be built", color: "warning" },
  building: { name: "Being built", color: "warning" },
  ready: { name: "Ready", color: "success" },
  failed: { name: "Failed", color: "danger" },
  expired: { name: "Expired", color: "subtle" },
};

/** Export packages: what was handed out, to whom and why. */
export function ExportsPage() {
  const { api, signIn, session } = usePortal();
  useEffect(() => {
    document.title = "Exports - Steno";
  }, []);
  const { data, error, again } = useLoading(useCallback((signal: AbortSignal) => api.get("/exports", {}, signal), [api]));
  const waiting = data?.exports.some((e) => e.state === "approved" || e.state === "building") ?? false;
  useEffect(() => {
    if (!waiting) return;
    const timer = window.setTimeout(again, 5000);
    return () => window.clearTimeout(timer);
  }, [waiting, again, data]);
  const officer = session.roles.includes("complianceOfficer");
  return (
    <>
      <h1>Exports</h1>
      <p className="lead">
        A package holds conversations as they were captured, in forms that people and tools read, and the proof that nothing of them was changed. Whoever gets it checks it without Steno.
      </p>
      {officer && <Order ordered={again} />}
      {error ? (
        <Failure error={error} again={again} signIn={signIn} />
      ) : !data ? (
        <Busy label="Reading the exports" />
      ) : data.exports.length === 0 ? (
        <Notice title="No exports"><p>Nothing was handed out yet.</p></Notice>
      ) : (
        <table className="grid exports" role="table">
          <thead role="rowgroup">
            <tr role="row">
              <th role="columnheader" scope="col">Case</th>
              <th role="columnheader" scope="col">Holds</th>
              <th role="columnheader" scope="col">State</th>
            </tr>
          </thead>
          <tbody role="rowgroup">
            {data.exports.map((e) => <Row key={e.id} order={e} named={data.people} />)}
          </tbody>
        </table>
      )}
    </>
  );
}

function Order({ ordered }: { ordered: () => void }) {
  const { api } = usePortal();
  const [search, setSearch] = useSearchParams();
  const wanted = search.getAll("conversation").join("\n");
  const [open, setOpen] = useState(wanted !== "");
  const [about, setAbout] = useState("");
  const [reason, setReason] = useState("");
  const [conversations, setConversations] = useState(wanted);
  const [recipient, setRecipient] = useState("");
  const [older, setOlder] = useState("");
  const [busy, setBusy] = useState(false);
  const [failed, setFailed] = useState("");
  if (!open) return <div className="actions above"><Button appearance="primary" onClick={() => setOpen(true)}>Order an export</Button></div>;
  const ids = conversations.split(/[\s,]+/).filter(Boolean);
  const sizes = older.split(/[\s,]+/).filter(Boolean).map(Number);
  const submit = async () => {
    setBusy(true);
    setFailed("");
    try {
      await api.post("/exports", {
        body: {
          case: about.trim(), reason: reason.trim(), conversations: ids,
          ...(recipient.trim() ? { recipient: recipient.trim() } : {}), ...(sizes.length > 0 ? { checkpoints: sizes } : {}),
        },
      });
      setOpen(false);
      setAbout("");
      setReason("");
      setConversations("");
      setSearch(new URLSearchParams());
      ordered();
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
      aria-label="Order an export"
      onSubmit={(e) => {
        e.preventDefault();
        void submit();
      }}
    >
      <h2>Order an export</h2>
      <Field label="Case" required>
        <Input value={about} maxLength={200} onChange={(_, d) => setAbout(d.value)} />
      </Field>
      <Field label="Reason" required hint="At least 10 characters">
        <Input value={reason} maxLength={500} onChange={(_, d) => setReason(d.value)} />
      </Field>
      <Field label="Conversations" required hint={ids.length > 100 ? `${plural(ids.length, "conversation")}: a second compliance officer must agree` : "Ids, one a line"}>
        <Textarea value={conversations} rows={4} onChange={(_, d) => setConversations(d.value)} />
      </Field>
      <Field label="Recipient's age key" hint="Optional: encrypts the package to her public key, which begins with age1">
        <Input value={recipient} onChange={(_, d) => setRecipient(d.value)} />
      </Field>
      <Field label="Older checkpoints" hint="Optional: sizes of checkpoints of the custody log that the recipient holds" {...(sizes.some((n) => !Number.isSafeInteger(n) || n < 1) ? { validationMessage: "Want whole numbers.", validationState: "error" as const } : {})}>
        <Input value={older} onChange={(_, d) => setOlder(d.value)} />
      </Field>
      {failed && <MessageBar intent="error"><MessageBarBody>{failed}</MessageBarBody></MessageBar>}
      <div className="actions">
        <Button type="submit" appearance="primary" disabled={busy || !about.trim() || reason.trim().length < 10 || ids.length === 0 || sizes.some((n) => !Number.isSafeInteger(n) || n < 1)}>Order</Button>
        <Button onClick={() => setOpen(false)} disabled={busy}>Cancel</Button>
      </div>
    </form>
  );
}

const bytes = (n: number) => (n < 1 << 20 ? `${Math.ceil(n / 1024).toLocaleString()} KiB` : `${(n / (1 << 20)).toLocaleString(undefined, { maximumFractionDigits: 1 })} MiB`);

function Row({ order: o, named }: { order: Export; named: Named[] }) {
  const { people, session } = usePortal();
  const state = states[o.state];
  return (
    <tr role="row">
      <th role="rowheader" scope="row">
        {o.case}
        <span className="sub">{o.reason}</span>
        <span className="sub">
          Ordered by {o.requester === session.person ? "you" : calledIn(named, people, o.requester)}, <time dateTime={o.madeAt}>{formatDateTime(o.madeAt)}</time>
        </span>
      </th>
      <td role="cell" data-label="Holds">
        {plural(o.conversations, "conversation")}
        {o.size !== undefined && <span className="sub">{bytes(o.size)}{o.encrypted ? ", encrypted to a recipient" : ""}</span>}
        {o.sha256 && <span className="sub mono">SHA-256 {o.sha256}</span>}
      </td>
      <td role="cell" data-label="State">
        <Badge appearance="tint" color={state.color}>{state.name}</Badge>
        {o.failure && <span className="sub">{o.failure}</span>}
        {o.state === "requested" && <span className="sub"><Link href="/approvals">See approvals</Link></span>}
        {o.state === "ready" && o.expires && <span className="sub">Until <time dateTime={o.expires}>{formatDateTime(o.expires)}</time></span>}
        {o.state === "ready" && o.requester === session.person && <Fetch order={o} />}
      </td>
    </tr>
  );
}

function Fetch({ order: o }: { order: Export }) {
  const { api } = usePortal();
  const [done, setDone] = useState<number | null>(null);
  const [failed, setFailed] = useState("");
  const fetch = async () => {
    setFailed("");
    setDone(0);
    try {
      const blob = await api.exportPackage(o.id, o.size ?? 0, setDone);
      const url = URL.createObjectURL(blob);
      const a = document.createElement("a");
      a.href = url;
      a.download = `steno-export-${o.id}.zip${o.encrypted ? ".age" : ""}`;
      a.click();
      window.setTimeout(() => URL.revokeObjectURL(url), 60_000);
    } catch (e) {
      const error = asApiError(e);
      if (error) setFailed(refusal(error));
    } finally {
      setDone(null);
    }
  };
  return (
    <div className="actions">
      <Button size="small" disabled={done !== null} aria-label={`Download the package of ${o.case}`} onClick={() => void fetch()}>Download</Button>
      {done !== null && <span role="status">{Math.floor((100 * done) / Math.max(1, o.size ?? 1))} %</span>}
      {failed && <MessageBar intent="error"><MessageBarBody>{failed}</MessageBarBody></MessageBar>}
    </div>
  );
}

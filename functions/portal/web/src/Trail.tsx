import { Button, Dropdown, Field, Input, MessageBar, MessageBarBody, Option } from "@fluentui/react-components";
import { useCallback, useEffect, useMemo, useState } from "react";
import { Link, useSearchParams } from "wouter";
import type { CustodyEvent, Named } from "./api-types";
import { asApiError, useLoading, usePortal } from "./loading";
import { Busy, Failure, Notice, refusal } from "./states";
import { actionNames, calledIn, formatDateTime, plural } from "./words";

const localDay = (d: Date) => new Date(d.getTime() - d.getTimezoneOffset() * 60_000).toISOString().slice(0, 10);

function today(): string {
  return localDay(new Date());
}

/** The request for a day or more: the last day counts whole. */
function queryOf(from: string, to: string, action: string, item: string) {
  const start = new Date(`${from}T00:00:00`);
  const end = new Date(`${to}T00:00:00`);
  end.setDate(end.getDate() + 1);
  return { from: start.toISOString(), to: end.toISOString(), action, item, limit: 200 };
}

/** Who did what to which item, oldest first. */
export function TrailPage() {
  const { session } = usePortal();
  useEffect(() => {
    document.title = "Custody trail - Steno";
  }, []);
  const everything = session.roles.includes("complianceOfficer") || session.roles.includes("auditor");
  return (
    <>
      <h1>Custody trail</h1>
      <p className="lead">
        {everything ? "Who did what to which item. " : "What you did yourself. "}
        Each entry is in a signed log, so that none can be changed or removed unseen. Reading this page is an entry of its own.
      </p>
      <Trail />
    </>
  );
}

function Trail() {
  const [search, setSearch] = useSearchParams();
  const day = (name: string) => {
    const v = search.get(name) ?? "";
    return /^\d{4}-\d{2}-\d{2}$/.test(v) && !Number.isNaN(Date.parse(v)) ? v : today();
  };
  const [from, to, action, item] = [day("from"), day("to"), search.get("action") ?? "", search.get("item") ?? ""];
  const change = (name: string, value: string) =>
    setSearch((old) => {
      const next = new URLSearchParams(old);
      if (value) next.set(name, value);
      else next.delete(name);
      return next;
    });
  const wrong = from > to ? "The end is before the start." : (Date.parse(to) - Date.parse(from)) / 86_400_000 > 30 ? "At most 31 days at a time." : "";
  const query = useMemo(() => queryOf(from, to, action, item), [from, to, action, item]);
  return (
    <>
      <form className="filters" role="search" aria-label="Filter the trail" onSubmit={(e) => e.preventDefault()}>
        <Field label="Action">
          <Dropdown value={action ? (actionNames[action] ?? action) : "Every action"} selectedOptions={[action]} onOptionSelect={(_, d) => change("action", d.optionValue ?? "")}>
            <Option value="">Every action</Option>
            {Object.entries(actionNames).map(([value, name]) => <Option key={value} value={value}>{name}</Option>)}
          </Dropdown>
        </Field>
        <Field label="From">
          <Input type="date" value={from} max={to} onChange={(_, d) => d.value && change("from", d.value)} />
        </Field>
        <Field label="To" {...(wrong ? { validationMessage: wrong, validationState: "error" as const } : {})}>
          <Input type="date" value={to} onChange={(_, d) => d.value && change("to", d.value)} />
        </Field>
        <Field label="Item" hint="Id of a conversation, matter or request">
          <Input value={item} maxLength={64} onChange={(_, d) => change("item", d.value.trim())} />
        </Field>
      </form>
      {!wrong && <Events key={JSON.stringify(query)} query={query} />}
    </>
  );
}

function Events({ query }: { query: ReturnType<typeof queryOf> }) {
  const { api, signIn } = usePortal();
  const { data, error, again } = useLoading(useCallback((signal: AbortSignal) => api.get("/custody", { query }, signal), [api, query]));
  const [more, setMore] = useState<{ events: CustodyEvent[]; people: Named[]; cursor: string | undefined } | null>(null);
  const [failed, setFailed] = useState("");
  const [busy, setBusy] = useState(false);
  if (error) return <Failure error={error} again={again} signIn={signIn} />;
  if (!data) return <Busy label="Reading the trail" />;
  const events = [...data.events, ...(more?.events ?? [])];
  const named = [...data.people, ...(more?.people ?? [])];
  const cursor = more ? more.cursor : data.cursor;
  const doing = async (work: () => Promise<void>) => {
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
  };
  const load = () =>
    doing(async () => {
      const next = await api.get("/custody", { query: { ...query, cursor: cursor ?? "" } });
      setMore({ events: [...(more?.events ?? []), ...next.events], people: [...(more?.people ?? []), ...next.people], cursor: next.cursor });
    });
  const download = () =>
    doing(async () => {
      const url = URL.createObjectURL(new Blob([await api.trailTable({ ...query, limit: 1000 })], { type: "text/csv" }));
      const a = document.createElement("a");
      a.href = url;
      a.download = "custody.csv";
      a.click();
      URL.revokeObjectURL(url);
    });
  if (events.length === 0) {
    return (
      <div role="status">
        <Notice title="No entries" {...(cursor ? { actions: <Button onClick={() => void load()} disabled={busy}>Look further</Button> } : {})}>
          <p>{cursor ? "None among the first entries of this time." : "Nothing of this kind happened in this time."}</p>
        </Notice>
      </div>
    );
  }
  return (
    <>
      <div className="actions above">
        <span role="status">{plural(events.length, "entry", "entries")}, oldest first</span>
        <Button size="small" onClick={() => void download()} disabled={busy}>Download as a table</Button>
      </div>
      {failed && <MessageBar intent="error"><MessageBarBody>{failed}</MessageBarBody></MessageBar>}
      <table className="grid trail" role="table">
        <thead role="rowgroup">
          <tr role="row">
            <th role="columnheader" scope="col">When</th>
            <th role="columnheader" scope="col">Who</th>
            <th role="columnheader" scope="col">What</th>
            <th role="columnheader" scope="col">Item</th>
          </tr>
        </thead>
        <tbody role="rowgroup">
          {events.map((e) => <Row key={e.id} event={e} named={named} />)}
        </tbody>
      </table>
      {cursor && <div className="actions"><Button onClick={() => void load()} disabled={busy}>Load more</Button></div>}
    </>
  );
}

function Row({ event: e, named }: { event: CustodyEvent; named: Named[] }) {
  const { people, session } = usePortal();
  const who = e.actor ? (e.actor === session.person ? "You" : calledIn(named, people, e.actor)) : `Function ${e.system ?? ""}`;
  const objects = e.objects ?? [];
  return (
    <tr role="row">
      <th role="rowheader" scope="row"><time dateTime={e.at} title={e.id}>{formatDateTime(e.at)}</time></th>
      <td role="cell" data-label="Who">{who}</td>
      <td role="cell" data-label="What">{actionNames[e.action] ?? e.action}</td>
      <td role="cell" data-label="Item">
        {/^[0-9a-v]{32}-\d{8}$/.test(e.item) && session.seesContent ? <Link href={`/conversations/${e.item}`} className="mono">{e.item}</Link> : <span className="mono">{e.item}</span>}
        {(e.detail || objects.length > 0) && (
          <span className="sub">{[e.detail, objects.length > 0 && plural(objects.length, "evidence object")].filter(Boolean).join(", ")}</span>
        )}
      </td>
    </tr>
  );
}

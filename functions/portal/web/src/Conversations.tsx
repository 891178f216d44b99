import { Button, Combobox, Field, Input, Option } from "@fluentui/react-components";
import { CalendarLtrRegular, CallRegular, ChatMultipleRegular, ChatRegular, PeopleTeamRegular, QuestionCircleRegular } from "@fluentui/react-icons";
import { useCallback, useEffect, useMemo, useState } from "react";
import { Link, useSearchParams } from "wouter";
import type { ApiError } from "./api";
import type { Conversation } from "./api-types";
import { asApiError, useLoading, usePortal } from "./loading";
import { Busy, Failure, Notice } from "./states";
import { daysAgo, directionNames, formatDate, formatDateTime, formatDuration, formatTime, nameList, nameOf, placeOf, plural, titleOf } from "./words";

const icons: Record<Conversation["kind"], typeof ChatRegular> = {
  oneOnOne: ChatRegular,
  group: ChatMultipleRegular,
  meeting: CalendarLtrRegular,
  channel: PeopleTeamRegular,
  call: CallRegular,
  other: QuestionCircleRegular,
};

/** What the list is narrowed to. It stands in the address, so that a view can be passed on. */
interface Filters {
  person: string;
  from: string; // a local day, YYYY-MM-DD
  to: string;
}

/** The request for filters: days become moments, the last day counts whole. */
function queryOf(f: Filters) {
  const start = new Date(`${f.from}T00:00:00`);
  const end = new Date(`${f.to}T00:00:00`);
  end.setDate(end.getDate() + 1);
  return { person: f.person, from: start.toISOString(), to: end.toISOString(), limit: 50 };
}

function useFilters(): [Filters, (f: Partial<Filters>) => void, () => void, boolean] {
  const [search, setSearch] = useSearchParams();
  const day = (name: string, otherwise: string) => {
    const v = search.get(name) ?? "";
    return /^\d{4}-\d{2}-\d{2}$/.test(v) && !Number.isNaN(Date.parse(v)) ? v : otherwise;
  };
  const person = search.get("person") ?? "";
  const from = day("from", daysAgo(30));
  const to = day("to", daysAgo(0));
  const filters = useMemo(() => ({ person, from, to }), [person, from, to]);
  const change = (f: Partial<Filters>) =>
    setSearch((old) => {
      const next = new URLSearchParams(old);
      for (const [name, value] of Object.entries(f)) {
        if (value) next.set(name, value);
        else next.delete(name);
      }
      return next;
    });
  return [filters, change, () => setSearch(new URLSearchParams()), search.size > 0];
}

export function ConversationsPage() {
  const { session } = usePortal();
  useEffect(() => {
    document.title = "Conversations - Steno";
  }, []);
  return (
    <>
      <h1>Conversations</h1>
      {session.seesContent ? <Archive /> : <NoContent />}
    </>
  );
}

function NoContent() {
  const { session } = usePortal();
  const administrator = session.roles.includes("administrator");
  return (
    <Notice
      title={session.roles.length === 0 ? "You have no role in Steno" : "Your role shows no conversations"}
      actions={administrator && <Link href="/people">See recorded users</Link>}
    >
      <p>
        {administrator
          ? "Administrators configure who is recorded and see no content. This separation is deliberate."
          : "Supervisors see the recorded users of their desks, compliance officers see all. Roles come from groups in Microsoft Entra; ask who manages them. A change takes effect with the next group sync."}
      </p>
    </Notice>
  );
}

function Archive() {
  const [filters, change, clear, narrowed] = useFilters();
  const backwards = filters.from > filters.to;
  const tooLong = (Date.parse(filters.to) - Date.parse(filters.from)) / 86_400_000 > 398;
  return (
    <>
      <FilterBar filters={filters} change={change} clear={narrowed ? clear : null} wrong={backwards ? "The end is before the start." : tooLong ? "At most 398 days at a time." : ""} />
      {!backwards && !tooLong && <List filters={filters} change={change} narrowed={narrowed} clear={clear} />}
    </>
  );
}

interface FilterBarProps {
  filters: Filters;
  change: (f: Partial<Filters>) => void;
  clear: (() => void) | null;
  wrong: string;
}

function FilterBar({ filters, change, clear, wrong }: FilterBarProps) {
  return (
    <form className="filters" role="search" aria-label="Filter conversations" onSubmit={(e) => e.preventDefault()}>
      <PersonPicker value={filters.person} change={(person) => change({ person })} />
      <Field label="From">
        <Input type="date" value={filters.from} max={filters.to} onChange={(_, d) => d.value && change({ from: d.value })} />
      </Field>
      <Field label="To" {...(wrong ? { validationMessage: wrong, validationState: "error" as const } : {})}>
        <Input type="date" value={filters.to} onChange={(_, d) => d.value && change({ to: d.value })} />
      </Field>
      {clear && <Button appearance="subtle" className="clear" onClick={clear}>Clear filters</Button>}
    </form>
  );
}

const everybody = "Everybody";

function PersonPicker({ value, change }: { value: string; change: (person: string) => void }) {
  const { people } = usePortal();
  const chosen = value ? nameOf(people, value) : everybody;
  const [typed, setTyped] = useState<string | null>(null);
  const wanted = (typed ?? "").toLocaleLowerCase();
  const offered = people.filter((p) => !wanted || `${p.name} ${p.address}`.toLocaleLowerCase().includes(wanted)).slice(0, 100);
  return (
    <Field label="Recorded user">
      <Combobox
        freeform
        value={typed ?? chosen}
        selectedOptions={[value]}
        onChange={(e) => setTyped(e.target.value)}
        onFocus={(e) => e.target.select()}
        onBlur={() => setTyped(null)}
        onOptionSelect={(_, d) => {
          setTyped(null);
          change(d.optionValue ?? "");
        }}
      >
        {!wanted && <Option value="">{everybody}</Option>}
        {offered.map((p) => (
          <Option key={p.id} value={p.id} text={p.name || p.id}>
            <span className="stacked">
              {p.name || p.id}
              <span className="sub">{p.address}</span>
            </span>
          </Option>
        ))}
        {offered.length === 0 && <Option disabled text="">Nobody by this name</Option>}
      </Combobox>
    </Field>
  );
}

interface ListProps {
  filters: Filters;
  change: (f: Partial<Filters>) => void;
  narrowed: boolean;
  clear: () => void;
}

function List({ filters, change, narrowed, clear }: ListProps) {
  const { api, signIn, people } = usePortal();
  const query = useMemo(() => queryOf(filters), [filters]);
  const { data, error, again } = useLoading(useCallback((signal: AbortSignal) => api.get("/conversations", { query }, signal), [api, query]));
  if (error) return <Failure error={error} again={again} signIn={signIn} />;
  if (!data) return <Busy label="Reading the list" />;
  if (data.conversations.length === 0 && !data.cursor) {
    return (
      <div role="status">
        <Notice
          title="No conversations found"
          actions={
            <>
              <Button onClick={() => change({ from: daysAgo(365), to: daysAgo(0) })}>Search the last year</Button>
              {narrowed && <Button appearance="subtle" onClick={clear}>Clear filters</Button>}
            </>
          }
        >
          <p>
            For {filters.person ? nameOf(people, filters.person) : "everybody you may see"}, from {formatDate(`${filters.from}T00:00:00`)} to {formatDate(`${filters.to}T00:00:00`)}.
          </p>
          <p>The daily export completes a day; the newest messages may take until then.</p>
        </Notice>
      </div>
    );
  }
  return <Rows key={JSON.stringify(query)} first={data.conversations} cursor={data.cursor} query={query} />;
}

function Rows({ first, cursor, query }: { first: Conversation[]; cursor: string | undefined; query: ReturnType<typeof queryOf> }) {
  const { api, signIn } = usePortal();
  const [more, setMore] = useState<{ rows: Conversation[]; cursor: string | undefined }>({ rows: [], cursor });
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<ApiError | null>(null);
  const rows = [...first, ...more.rows];
  const load = async () => {
    if (!more.cursor) return;
    setBusy(true);
    setError(null);
    try {
      const page = await api.get("/conversations", { query: { ...query, cursor: more.cursor } });
      setMore({ rows: [...more.rows, ...page.conversations], cursor: page.cursor });
    } catch (e) {
      setError(asApiError(e));
    } finally {
      setBusy(false);
    }
  };
  return (
    <>
      <p className="lead" role="status">
        {plural(rows.length, "conversation")}{more.cursor ? " so far" : ""}, newest first
      </p>
      <ConversationTable rows={rows} />
      {error && <Failure error={error} again={() => void load()} signIn={signIn} />}
      {more.cursor && (
        <div className="actions">
          <Button onClick={() => void load()} disabledFocusable={busy}>{busy ? "Reading" : "Load more"}</Button>
        </div>
      )}
    </>
  );
}

function ConversationTable({ rows }: { rows: Conversation[] }) {
  return (
    <table className="grid conversations" role="table" aria-label="Conversations">
      <thead role="rowgroup">
        <tr role="row">
          <th role="columnheader" scope="col">Participants</th>
          <th role="columnheader" scope="col">Kind</th>
          <th role="columnheader" scope="col">First</th>
          <th role="columnheader" scope="col">Last</th>
          <th role="columnheader" scope="col">Recorded users</th>
          <th role="columnheader" scope="col" className="number">Versions or length</th>
        </tr>
      </thead>
      <tbody role="rowgroup">
        {rows.map((c) => <Row key={c.id} conversation={c} />)}
      </tbody>
    </table>
  );
}

function Row({ conversation: c }: { conversation: Conversation }) {
  const { people } = usePortal();
  const Icon = icons[c.kind];
  const names = (c.participants ?? []).map((p) => p.name || p.id);
  const custodians = (c.custodians ?? []).map((id) => nameOf(people, id));
  return (
    <tr role="row">
      <th role="rowheader" scope="row">
        <Link href={`/conversations/${c.id}`} title={names.join(", ")}>{c.disposed ? (c.disposed.ground === "erasure" ? "Erased" : "Disposed") : c.call?.subject || titleOf(c)}</Link>
      </th>
      <td role="cell" data-label="Kind"><span className="kind"><Icon aria-hidden="true" />{c.call ? directionNames[c.call.direction] : placeOf(people, c)}{c.call?.outcome === "lost" ? ", incomplete" : ""}</span></td>
      <td role="cell" data-label="First"><time dateTime={c.first} title={`${c.first} (UTC)`}>{formatDateTime(c.first)}</time></td>
      <td role="cell" data-label="Last"><time dateTime={c.last} title={`${c.last} (UTC)`}>{formatTime(c.last)}</time></td>
      <td role="cell" data-label="Recorded users"><span title={custodians.join(", ")}>{nameList(custodians, 2)}</span></td>
      <td role="cell" data-label="Versions or length" className="number">
        {!c.call ? c.versions.toLocaleString() : c.call.running ? "running" : formatDuration(Date.parse(c.last) - Date.parse(c.first))}
      </td>
    </tr>
  );
}

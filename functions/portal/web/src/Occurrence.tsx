import { Button } from "@fluentui/react-components";
import { useCallback, useState } from "react";
import { Link } from "wouter";
import type { ConversationDetail, Message } from "./api-types";
import { useLoading, usePortal } from "./loading";
import { MessageItem } from "./Message";
import { Busy, Failure } from "./states";
import { formatDateTime, formatDay } from "./words";

/** What was written in a call's chat while it went on. Reading it is an event of the custody log, so it is asked for. */
export function Written({ detail }: { detail: ConversationDetail }) {
  const [open, setOpen] = useState(false);
  if (!detail.thread) return null;
  return (
    <section aria-label="Written during this call">
      <h2>Written during this call</h2>
      {open ? <WrittenMessages detail={detail} /> : <Button onClick={() => setOpen(true)}>Show what was written</Button>}
    </section>
  );
}

function WrittenMessages({ detail }: { detail: ConversationDetail }) {
  const { api, signIn } = usePortal();
  const { data, error, again } = useLoading(
    useCallback(
      async (signal: AbortSignal) => {
        const whole = await api.get("/conversations/{id}/occurrence", { path: { id: detail.id } }, signal);
        const days: { id: string; messages: Message[] }[] = [];
        for (const id of whole.chats) {
          const day = await api.get("/conversations/{id}/messages", { path: { id } }, signal);
          days.push({ id, messages: (day.messages ?? []).filter((m) => m.sent >= whole.from && m.sent <= whole.to) });
        }
        return days;
      },
      [api, detail.id],
    ),
  );
  if (error) return <Failure error={error} again={again} signIn={signIn} />;
  if (!data) return <Busy label="Reading the chat" />;
  const custodians = new Set(detail.custodians);
  const written = data.filter((d) => d.messages.length > 0);
  if (written.length === 0) return <p role="status">The archive holds nothing that was written then and is yours to see.</p>;
  return (
    <>
      {written.map((d) => (
        <div className="thread" key={d.id}>
          <p className="sub">From <Link href={`/conversations/${d.id}`}>the chat of {formatDay(d.id)}</Link></p>
          <ol>{d.messages.map((m) => <MessageItem key={m.id} message={m} conversation={d.id} recorded={custodians.has(m.from.id)} />)}</ol>
        </div>
      ))}
    </>
  );
}

/** The calls that were held in a chat on its day: read when asked for, since a listing too is an event of the custody log. */
export function CallsHeld({ detail }: { detail: ConversationDetail }) {
  const [open, setOpen] = useState(false);
  if (detail.kind !== "meeting" && detail.kind !== "group") return null;
  return (
    <>
      <h2>Calls</h2>
      {open ? <CallList id={detail.id} /> : <Button size="small" onClick={() => setOpen(true)}>Show the calls of this chat</Button>}
    </>
  );
}

function CallList({ id }: { id: string }) {
  const { api, signIn } = usePortal();
  const { data, error, again } = useLoading(useCallback((signal: AbortSignal) => api.get("/conversations/{id}/occurrence", { path: { id } }, signal), [api, id]));
  if (error) return <Failure error={error} again={again} signIn={signIn} />;
  if (!data) return <Busy label="Looking for calls" />;
  if (data.calls.length === 0) return <p role="status">No call of that day is in the archive and yours to see.</p>;
  return (
    <ul className="days">
      {data.calls.map((c) => (
        <li key={c.id}>
          <Link href={`/conversations/${c.id}`}>{c.subject || "Call"}</Link> <span className="sub">{formatDateTime(c.first)}{c.running ? ", running" : ""}</span>
        </li>
      ))}
    </ul>
  );
}

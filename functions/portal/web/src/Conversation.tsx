import { Button, MessageBar, MessageBarBody, MessageBarTitle } from "@fluentui/react-components";
import { useCallback, useEffect, useState } from "react";
import { Link } from "wouter";
import type { Conversation, ConversationDetail, Disposed, Messages } from "./api-types";
import { Call } from "./Call";
import { useLoading, usePortal } from "./loading";
import { MessageItem } from "./Message";
import { CallsHeld } from "./Occurrence";
import { Busy, Failure, Notice } from "./states";
import { formatDateTime, formatDay, nameOf, placeOf, plural, titleOf } from "./words";

/** One day of a thread. Opening it is an event of the custody log. */
export function ConversationPage({ id }: { id: string }) {
  const { api, signIn } = usePortal();
  const { data, error, again } = useLoading(
    useCallback(
      async (signal: AbortSignal) => {
        const detail = await api.get("/conversations/{id}", { path: { id } }, signal);
        // A call has no messages of its own; its player asks for what it needs. Of what was
        // disposed there is nothing to ask for.
        return { detail, messages: detail.call || detail.disposed ? null : await api.get("/conversations/{id}/messages", { path: { id } }, signal) };
      },
      [api, id],
    ),
  );
  useEffect(() => {
    document.title = "Conversation - Steno";
  }, []);
  return (
    <>
      <p className="crumb"><Link href="/">Conversations</Link></p>
      {error && (
        <>
          <h1>Conversation</h1>
          <Failure error={error} again={again} signIn={signIn} />
        </>
      )}
      {!error && !data && <Busy label="Opening the conversation" />}
      {data?.detail.disposed && <Tombstone detail={data.detail} disposed={data.detail.disposed} />}
      {data?.detail.call && !data.detail.disposed && <Call detail={data.detail} call={data.detail.call} />}
      {data?.messages && <Opened detail={data.detail} messages={data.messages} />}
    </>
  );
}

/** What is left of a conversation that was disposed or erased. */
function Tombstone({ detail, disposed }: { detail: ConversationDetail; disposed: Disposed }) {
  const { people } = usePortal();
  return (
    <>
      <h1>{disposed.ground === "erasure" ? "Erased conversation" : "Disposed conversation"}</h1>
      <p className="lead">{placeOf(people, detail)} · {formatDay(detail.id)} (UTC)</p>
      <Notice title="There is nothing left to show" actions={<Link href={`/trail?item=${detail.id}&from=${disposed.at.slice(0, 10)}&to=${disposed.at.slice(0, 10)}`}>See what the custody trail says</Link>}>
        <p>
          {disposed.ground === "erasure" ? "Two persons agreed to erase it" : `Its time under the policy "${disposed.policy}" had passed`}; it was destroyed on <time dateTime={disposed.at}>{formatDateTime(disposed.at)}</time>.
        </p>
        <p>Custody event <span className="mono">{disposed.event}</span>, which the signed log proves.</p>
      </Notice>
    </>
  );
}

function Opened({ detail, messages }: { detail: ConversationDetail; messages: Messages }) {
  const { people } = usePortal();
  return (
    <>
      <h1>{titleOf(detail, 4)}</h1>
      <p className="lead">{placeOf(people, detail)} · {formatDay(detail.id)} (UTC)</p>
      <MessageBar intent="info" layout="multiline">
        <MessageBarBody>
          <MessageBarTitle>This reading is recorded.</MessageBarTitle> Custody event <span className="mono" data-event={messages.event}>{messages.event}</span>
        </MessageBarBody>
      </MessageBar>
      {messages.pending ? (
        <MessageBar intent="warning" layout="multiline">
          <MessageBarBody>{plural(messages.pending, "version is", "versions are")} still being stored. Open this page again in a few minutes.</MessageBarBody>
        </MessageBar>
      ) : null}
      {messages.truncated && (
        <MessageBar intent="warning" layout="multiline">
          <MessageBarBody>This conversation is larger than one page may show. Parts of it are missing here and complete in the archive.</MessageBarBody>
        </MessageBar>
      )}
      <div className="conversation">
        <Thread detail={detail} messages={messages} />
        <Facts detail={detail} />
      </div>
    </>
  );
}

/** How many messages are laid out before the reader asks for more. */
const step = 300;

function Thread({ detail, messages }: { detail: ConversationDetail; messages: Messages }) {
  const [shown, setShown] = useState(step);
  const all = messages.messages ?? [];
  const custodians = new Set(detail.custodians);
  if (all.length === 0) {
    return (
      <Notice title="No messages to show">
        <p>{messages.pending ? "They are still being stored." : "The archive holds no version of a message of this day."}</p>
      </Notice>
    );
  }
  return (
    <section aria-label="Messages" className="thread">
      <ol>
        {all.slice(0, shown).map((m) => <MessageItem key={m.id} message={m} conversation={detail.id} recorded={custodians.has(m.from.id)} />)}
      </ol>
      {all.length > shown && (
        <div className="actions">
          <span>{shown.toLocaleString()} of {plural(all.length, "message")}</span>
          <Button onClick={() => setShown(shown + step)}>Show more</Button>
        </div>
      )}
    </section>
  );
}

function Facts({ detail }: { detail: ConversationDetail }) {
  const { people, session } = usePortal();
  return (
    <aside className="facts" aria-label="About this conversation">
      <h2>About</h2>
      <dl>
        <div><dt>First message</dt><dd><time dateTime={detail.first} title={`${detail.first} (UTC)`}>{formatDateTime(detail.first)}</time></dd></div>
        <div><dt>Last message</dt><dd><time dateTime={detail.last} title={`${detail.last} (UTC)`}>{formatDateTime(detail.last)}</time></dd></div>
        <div><dt>Message versions</dt><dd>{detail.versions.toLocaleString()}</dd></div>
        <div><dt>Evidence objects</dt><dd>{detail.objects.toLocaleString()}</dd></div>
        <div><dt>Receipts by others</dt><dd>{detail.receipts.toLocaleString()}</dd></div>
        <div><dt>Recorded because of</dt><dd>{(detail.custodians ?? []).map((id) => nameOf(people, id)).join(", ")}</dd></div>
        <div><dt>Participants who wrote</dt><dd>{(detail.participants ?? []).map((p) => p.name || p.id).join(", ") || "Nobody"}</dd></div>
        <div><dt>Thread</dt><dd className="mono">{detail.thread}</dd></div>
      </dl>
      {session.roles.includes("complianceOfficer") && <p><Link href={`/exports?conversation=${detail.id}`}>Export this conversation</Link></p>}
      <CallsHeld detail={detail} />
      <OtherDays thread={detail.threadKey} here={detail.id} />
    </aside>
  );
}

/** The thread's other days: read when asked for, since a listing too is an event of the custody log. */
function OtherDays({ thread, here }: { thread: string; here: string }) {
  const [open, setOpen] = useState(false);
  return (
    <>
      <h2>Other days</h2>
      {open ? <DayList thread={thread} here={here} /> : <Button size="small" onClick={() => setOpen(true)}>Show this thread's other days</Button>}
    </>
  );
}

function DayList({ thread, here }: { thread: string; here: string }) {
  const { api, signIn } = usePortal();
  const { data, error, again } = useLoading(
    useCallback(
      async (signal: AbortSignal) => {
        const days: Conversation[] = [];
        let cursor: string | undefined;
        do {
          const page = await api.get("/threads/{thread}/conversations", { path: { thread }, query: { limit: 100, ...(cursor ? { cursor } : {}) } }, signal);
          days.push(...page.conversations);
          cursor = page.cursor;
        } while (cursor && days.length < 400);
        return days.filter((d) => d.id !== here);
      },
      [api, thread, here],
    ),
  );
  if (error) return <Failure error={error} again={again} signIn={signIn} />;
  if (!data) return <Busy label="Reading the thread" />;
  if (data.length === 0) return <p role="status">The archive holds no other day of this thread that is yours to see.</p>;
  return (
    <ul className="days">
      {data.map((d) => (
        <li key={d.id}>
          <Link href={`/conversations/${d.id}`}>{formatDay(d.id)}</Link> <span className="sub">{plural(d.versions, "version")}</span>
        </li>
      ))}
    </ul>
  );
}

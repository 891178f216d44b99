import { Avatar, Badge, Button } from "@fluentui/react-components";
import { ArrowDownloadRegular, AttachRegular, DeleteRegular } from "@fluentui/react-icons";
import { useId, useState } from "react";
import type { Attached, Message, Version } from "./api-types";
import { asApiError, usePortal } from "./loading";
import { carriesMeaning, MessageFrame } from "./MessageFrame";
import { attachedNames, formatDateTime, formatSize, formatTime, gapNames, nameOf, plural } from "./words";

/** A moment, with what UTC calls it on hover. */
function Moment({ at, long }: { at: string; long?: boolean }) {
  return <time dateTime={at} title={`${at} (UTC)`}>{long ? formatDateTime(at) : formatTime(at)}</time>;
}

const identityNames: Record<string, string> = {
  aadUser: "",
  application: "App",
  anonymousGuest: "Anonymous guest",
  federatedUser: "External",
  onPremiseAadUser: "",
  personalMicrosoftAccountUser: "External",
  skypeUser: "External",
  phoneUser: "Phone",
  emailUser: "Email",
  azureCommunicationServicesUser: "External",
};

/** What of a message's versions is shown first, and what is folded away. */
interface Shown {
  last: Version;
  /** The version whose content is shown: of a deleted message, the last that had any. */
  content: Version | null;
  edited: boolean;
}

const hasContent = (v: Version) => v.text !== "" || (v.attached?.length ?? 0) > 0;

function shownOf(versions: Version[]): Shown | null {
  const last = versions.at(-1);
  if (!last) return null;
  const content = last.deleted ? (versions.findLast((v) => hasContent(v)) ?? null) : last;
  const texts = new Set(versions.filter((v) => !v.deleted).map((v) => v.html));
  return { last, content, edited: Boolean((content ?? last).edited) || texts.size > 1 };
}

export function MessageItem({ message, conversation, recorded }: { message: Message; conversation: string; recorded: boolean }) {
  const shown = shownOf(message.versions);
  if (!shown) return null;
  const { last, content, edited } = shown;
  // A message of a type that is not known yet is shown whole; only what nobody sent is an event.
  if (message.type !== "message" && !message.from.id && !message.unclear) return <SystemEvent message={message} conversation={conversation} />;
  const author = message.unclear ? "Unclear item" : message.from.name || message.from.id || "Unknown sender";
  const identity = identityNames[message.from.kind ?? "aadUser"] ?? "External";
  const earlier = message.versions.slice(0, -1);
  return (
    <li className={last.deleted ? "message deleted" : "message"}>
      <Avatar name={author} color="colorful" size={32} aria-hidden="true" />
      <article aria-label={`${author}, ${formatTime(message.sent)}`}>
        <header>
          <span className="author">{author}</span>
          <Moment at={message.sent} />
          {recorded && <Badge appearance="tint" color="brand">Recorded user</Badge>}
          {identity && <Badge appearance="tint" color="severe">{identity}</Badge>}
          {edited && <Badge appearance="tint" color="informative">Edited</Badge>}
          {message.unclear && <Badge appearance="tint" color="warning">Could not be read as a message</Badge>}
        </header>
        {last.deleted && (
          <p className="state">
            <DeleteRegular aria-hidden="true" /> Deleted <Moment at={last.deleted} long />. {content ? "Captured before:" : "Nothing was captured before it was deleted."}
          </p>
        )}
        {content && <Content version={content} author={author} sent={message.sent} unclear={message.unclear ?? false} conversation={conversation} />}
        <footer>
          {earlier.length > 0 && <Disclosure closed={plural(earlier.length, "earlier version")} open="Hide earlier versions"><Earlier versions={earlier} author={author} conversation={conversation} /></Disclosure>}
          <Disclosure closed="Details" open="Hide details"><Details message={message} conversation={conversation} /></Disclosure>
        </footer>
      </article>
    </li>
  );
}

function Content({ version: v, author, sent, unclear, conversation }: { version: Version; author: string; sent: string; unclear: boolean; conversation: string }) {
  const reactions = new Map<string, number>();
  for (const r of v.reactions ?? []) reactions.set(r, (reactions.get(r) ?? 0) + 1);
  return (
    <div className="content">
      {v.subject && <p className="subject">{v.subject}</p>}
      {carriesMeaning(v.html) && !unclear
        ? <MessageFrame html={v.html} title={`Message of ${author}, ${formatTime(sent)}`} />
        : v.text !== "" && <p className={unclear ? "text raw" : "text"}>{v.text}</p>}
      {v.text === "" && !v.attached?.length && <p className="state">No text.</p>}
      {v.attached && (
        <ul className="attached" aria-label="Attachments">
          {v.attached.map((a) => <Attachment key={a.id} attached={a} conversation={conversation} />)}
        </ul>
      )}
      {reactions.size > 0 && (
        <ul className="reactions" aria-label="Reactions">
          {[...reactions].map(([name, n]) => <li key={name}>{name}{n > 1 && ` × ${n}`}</li>)}
        </ul>
      )}
    </div>
  );
}

/** What an attachment is, and what became of it. */
function stateOf(a: Attached): string {
  if (a.state === "gap") return `Not in the archive: ${a.reason ? gapNames[a.reason] : "could not be read"}`;
  if (a.state === "expected") return "Not fetched yet";
  if (a.state === "unfetched") return "Not fetched";
  if (a.state === "message") return "Kept in the message";
  return formatSize(a.size ?? 0) + (a.rule === "later" ? ", as it was when it was fetched" : a.rule === "at-sending" ? ", as it was when it was sent" : "");
}

function Attachment({ attached: a, conversation }: { attached: Attached; conversation: string }) {
  const { api } = usePortal();
  const [said, setSaid] = useState("");
  const name = a.name || attachedNames[a.kind];
  const save = async () => {
    const size = a.size ?? 0;
    setSaid("Reading");
    try {
      const blob = await api.attachment({ id: conversation, attachment: a.id }, size, (done) => setSaid(`${formatSize(done)} of ${formatSize(size)}`));
      saveBlob(blob, a.file ?? "attachment.bin");
      setSaid("Saved");
    } catch (e) {
      const error = asApiError(e);
      setSaid(error?.status === 429 ? "Too many requests; try again in a moment" : `Not saved: ${error?.message ?? "no answer"}`);
    }
  };
  return (
    <li>
      <AttachRegular aria-hidden="true" />
      <span>{name}</span>
      <span className="state">{stateOf(a)}</span>
      {a.state === "fetched" && <Button size="small" appearance="subtle" icon={<ArrowDownloadRegular />} aria-label={`Download ${name}`} onClick={() => void save()} />}
      <span role="status">{said}</span>
    </li>
  );
}

function saveBlob(blob: Blob, name: string) {
  const url = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  window.setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

function SystemEvent({ message, conversation }: { message: Message; conversation: string }) {
  const last = message.versions.at(-1);
  return (
    <li className="event">
      <p>
        {last?.text || "System event"} · <Moment at={message.sent} />
      </p>
      <Disclosure closed="Details" open="Hide details"><Details message={message} conversation={conversation} /></Disclosure>
    </li>
  );
}

function Disclosure({ closed, open, children }: { closed: string; open: string; children: React.ReactNode }) {
  const [shown, setShown] = useState(false);
  const id = useId();
  return (
    <>
      <Button appearance="transparent" size="small" className="disclosure" aria-expanded={shown} aria-controls={id} onClick={() => setShown(!shown)}>
        {shown ? open : closed}
      </Button>
      <div id={id} className="disclosed" hidden={!shown}>{shown && children}</div>
    </>
  );
}

function Earlier({ versions, author, conversation }: { versions: Version[]; author: string; conversation: string }) {
  return (
    <ol className="earlier" aria-label="Earlier versions, newest first" reversed>
      {versions.toReversed().map((v) => (
        <li key={v.etag}>
          <p className="state">
            As of {v.modified ? <Moment at={v.modified} long /> : "an unknown time"}
            {v.deleted && ", deleted"}
          </p>
          <Content version={v} author={author} sent={v.modified ?? v.capturedAt} unclear={false} conversation={conversation} />
        </li>
      ))}
    </ol>
  );
}

function Details({ message, conversation }: { message: Message; conversation: string }) {
  return (
    <ul className="details" aria-label="Evidence of each version">
      {message.versions.map((v) => <Evidence key={v.etag + v.sha256} message={message.id} version={v} conversation={conversation} />)}
    </ul>
  );
}

function Evidence({ message, version: v, conversation }: { message: string; version: Version; conversation: string }) {
  const { people } = usePortal();
  return (
    <li>
      <dl>
        <div><dt>Version</dt><dd>{v.etag}</dd></div>
        {v.modified && <div><dt>Modified</dt><dd><Moment at={v.modified} long /></dd></div>}
        {v.edited && <div><dt>Edited</dt><dd><Moment at={v.edited} long /></dd></div>}
        {v.deleted && <div><dt>Deleted</dt><dd><Moment at={v.deleted} long /></dd></div>}
        <div><dt>Captured</dt><dd><Moment at={v.capturedAt} long /></dd></div>
        <div><dt>Custodian</dt><dd>{nameOf(people, v.custodian)}</dd></div>
        <div><dt>SHA-256</dt><dd className="mono">{v.sha256}</dd></div>
      </dl>
      <Download message={message} version={v} conversation={conversation} />
    </li>
  );
}

/** Saves the original bytes, after it has checked that they have the digest that is shown. */
function Download({ message, version: v, conversation }: { message: string; version: Version; conversation: string }) {
  const { api } = usePortal();
  const [said, setSaid] = useState("");
  const save = async () => {
    setSaid("Reading the original");
    try {
      const bytes = await api.original({ id: conversation, message, etag: v.etag });
      const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
      if ([...digest].map((b) => b.toString(16).padStart(2, "0")).join("") !== v.sha256) {
        setSaid("Not saved: the bytes do not have this SHA-256");
        return;
      }
      saveBlob(new Blob([bytes], { type: "application/octet-stream" }), `message-${message}-${v.etag}.json`);
      setSaid("Saved; SHA-256 matches");
    } catch (e) {
      const error = asApiError(e);
      setSaid(error?.status === 429 ? "Too many requests; try again in a moment" : `Not saved: ${error?.message ?? "no answer"}`);
    }
  };
  return (
    <div className="download">
      <Button size="small" icon={<ArrowDownloadRegular />} onClick={() => void save()}>Download original</Button>
      <span role="status">{said}</span>
    </div>
  );
}

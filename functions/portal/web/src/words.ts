import type { Attached, CallFacts, Conversation, CoverageTotal, Person } from "./api-types";

const dateTime = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const time = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const date = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });
const utcDay = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeZone: "UTC" });

export const formatDateTime = (iso: string) => dateTime.format(new Date(iso));
export const formatTime = (iso: string) => time.format(new Date(iso));
export const formatDate = (iso: string) => date.format(new Date(iso));

/** The UTC day that a conversation covers, read from its id. */
export function formatDay(id: string): string {
  const day = id.slice(-8);
  return utcDay.format(new Date(`${day.slice(0, 4)}-${day.slice(4, 6)}-${day.slice(6)}T00:00:00Z`));
}

export const kindNames: Record<Conversation["kind"], string> = {
  oneOnOne: "One-on-one chat",
  group: "Group chat",
  meeting: "Meeting chat",
  channel: "Channel",
  call: "Call",
  other: "Other",
};

export const directionNames: Record<CallFacts["direction"], string> = {
  internal: "Internal call",
  external: "External call",
  federatedIn: "Incoming federated call",
  federatedOut: "Outgoing federated call",
  pstnIn: "Incoming telephone call",
  pstnOut: "Outgoing telephone call",
  conference: "Meeting",
};

export const outcomeNames: Record<NonNullable<CallFacts["outcome"]>, string> = {
  recorded: "Recorded",
  empty: "No conversation",
  excluded: "Not recorded by rule",
  lost: "Incomplete",
};

const localDay = (d: Date) => new Date(d.getTime() - d.getTimezoneOffset() * 60_000).toISOString().slice(0, 10);

/** The local day that was so many days ago, YYYY-MM-DD. */
export function daysAgo(n: number): string {
  const d = new Date();
  d.setDate(d.getDate() - n);
  return localDay(d);
}

/** What kind of place a conversation is: for a channel, with the team that hosts it if the reader may know of it. */
export function placeOf(people: Person[], c: Pick<Conversation, "kind" | "custodians">): string {
  const team = c.kind === "channel" ? people.find((p) => p.team && c.custodians?.includes(p.id)) : undefined;
  return team ? `${kindNames.channel} of ${team.name || team.id}` : kindNames[c.kind];
}

/** What a custody event says was done. */
export const actionNames: Record<string, string> = {
  read: "Read",
  play: "Played",
  list: "Listed",
  denied: "Refused",
  "roster-change": "Groups changed",
  capture: "Capture changed",
  lookback: "Look-back",
  "system-read": "Read by the system",
  seal: "Bound in the log",
  key: "Signing key changed",
  "key-revoked": "Signing key revoked",
  hold: "Hold placed",
  "release-request": "Release asked for",
  release: "Hold released",
  "hold-set": "Storage held",
  "hold-lifted": "Storage hold lifted",
  retain: "Retain Until moved on",
  request: "Asked for",
  approve: "Approved",
  reject: "Rejected",
  dispose: "Disposition begun",
  erase: "Erasure begun",
  "erase-refused": "Erasure refused",
  "dispose-refused": "Disposition refused",
  disposed: "Destroyed",
  certificate: "Certificate of disposition",
  fixity: "Evidence read again",
  "fixity-alarm": "Evidence damaged",
  "capture-gap": "Capture gap found",
  "gap-healed": "Capture gap healed",
  coverage: "Coverage stated",
  "attachment-gap": "Attachment not to be had",
  unwrap: "Key unwrapped without an event",
  export: "Exported",
  "package-expired": "Package destroyed",
};

export const modalityNames: Record<CoverageTotal["modality"], string> = { chat: "Chats", channel: "Channels", file: "Files", call: "Calls" };

/** Why something was not captured. */
export const codeNames: Record<string, string> = {
  "rule-never": "Never recorded by rule",
  "rule-external": "Only calls with outsiders are recorded",
  rule: "Not recorded by rule",
  "not-recorded": "Not recorded at that time",
  "not-established": "Nobody took the call",
  "foreign-link": "Link to another company's service",
  "no-file": "A folder or notebook, not a file",
  "no-recording": "No recording",
  "recording-lost": "The recording was lost",
  "recording-empty": "The recording is empty",
  "media-short": "Recorded in part",
  "media-gaps": "Lost on the way",
  "mailbox-missing": "No mailbox",
  refused: "Microsoft refuses",
  unreadable: "Could not be read",
  "file-gone": "The file was deleted",
  "file-forbidden": "The file is out of reach",
  "file-too-large": "The file is too large",
  "file-unreadable": "The file could not be read",
  "not-read-yet": "Not read yet",
  pending: "Too young to be judged",
  running: "Still being recorded",
  "no-record": "Microsoft has no record of the call",
  unconfirmed: "Not confirmed by an export",
};

/** What a message points at, where its sender gave it no name. */
export const attachedNames: Record<Attached["kind"], string> = {
  file: "File",
  loop: "Loop component",
  image: "Image",
  emoji: "Emoji",
  snippet: "Code",
  "card-image": "Image of a card",
  card: "Card",
  quote: "Quoted message",
  meeting: "Meeting",
  other: "Something of an unknown kind",
};

/** Why an attachment is not in the archive. */
export const gapNames: Record<NonNullable<Attached["reason"]>, string> = {
  "foreign-host": "lies outside Microsoft 365",
  malformed: "its address cannot be read",
  "external-tenant": "lies with the sender's organization",
  forbidden: "Microsoft refused it",
  protected: "is locked, or blocked as harmful",
  gone: "was deleted before it was fetched",
  "no-file": "is a folder or notebook",
  "too-large": "is too large",
  altered: "arrived damaged each time",
  unavailable: "could not be read",
};

/** A number of bytes for people. */
export function formatSize(bytes: number): string {
  const units = ["bytes", "KB", "MB", "GB"];
  let i = 0;
  while (bytes >= 1000 && i < units.length - 1) {
    bytes /= 1000;
    i++;
  }
  return `${i === 0 ? bytes : bytes.toFixed(1)} ${units[i]}`;
}

/** A length of time as a clock shows it. */
export function formatDuration(ms: number): string {
  const s = Math.max(0, Math.floor(ms / 1000));
  const two = (n: number) => String(n).padStart(2, "0");
  return s >= 3600 ? `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}` : `${Math.floor(s / 60)}:${two(s % 60)}`;
}

export const plural = (n: number, one: string, many = one + "s") => `${n.toLocaleString()} ${n === 1 ? one : many}`;

/** What a conversation is called: by who wrote in it, or by what it is. */
export function titleOf(c: Pick<Conversation, "participants" | "thread" | "kind">, shown = 3): string {
  if (c.participants?.length) return nameList(c.participants.map((p) => p.name || p.id), shown);
  if (c.kind === "call") return "Call";
  // The thread under which the archive files what an export returned and nobody could read as a message.
  return c.thread.startsWith("unclear:") ? "Unclear items" : "System events only";
}

/** The first names of a list, and how many more there are. */
export function nameList(names: string[], shown = 3): string {
  if (names.length === 0) return "Nobody";
  const more = names.length - shown;
  return names.slice(0, shown).join(", ") + (more > 0 ? ` and ${more} more` : "");
}

/** What a person is called, by whoever names her: an answer, or the list of recorded users. */
export function calledIn(named: { id: string; name: string }[], people: Person[], id: string): string {
  return named.find((p) => p.id === id)?.name || nameOf(people, id);
}

/** What a person is called, by her id; an id that is not known stays an id. */
export function nameOf(people: Person[], id: string): string {
  return people.find((p) => p.id === id)?.name || id;
}

export const roleNames: Record<string, string> = {
  recordedUser: "Recorded user",
  supervisor: "Supervisor",
  complianceOfficer: "Compliance officer",
  administrator: "Administrator",
  auditor: "Auditor",
};

// Generated from openapi.json by generate.mjs; do not edit.

export interface Problem {
  status: number;
  title: string;
  detail?: string;
}

export interface Session {
  person: string;
  name: string;
  address: string;
  roles: Role[];
  seesContent: boolean;
  seesAll: boolean;
}

export type Role = "recordedUser" | "supervisor" | "complianceOfficer" | "administrator" | "auditor" | "recordedTeam";

export interface Period {
  person: string;
  role: Role;
  desk?: string;
  from: string;
  to?: string;
}

export interface Person {
  id: string;
  name: string;
  address: string;
  enabled: boolean;
  communicationsDlp: boolean;
  periods: Period[];
  team: boolean;
  capture: "deleted" | "left" | "disabled" | "guest" | "unlicensed" | "active";
  deleted?: string;
  lostPlan?: string;
  unread: Unread[];
}

export interface People {
  people: Person[];
}

export interface Participant {
  id: string;
  name?: string;
  kind?: string;
}

export interface Conversation {
  id: string;
  thread: string;
  kind: "oneOnOne" | "group" | "meeting" | "channel" | "other" | "call";
  modality: "chat" | "voice" | "video" | "screen";
  start: string;
  first: string;
  last: string;
  versions: number;
  participants?: Participant[];
  custodians?: string[];
  call?: CallFacts;
  objects?: number;
  disposed?: Disposed;
}

export interface ConversationDetail {
  id: string;
  thread: string;
  kind: "oneOnOne" | "group" | "meeting" | "channel" | "other" | "call";
  modality: "chat" | "voice" | "video" | "screen";
  start: string;
  first: string;
  last: string;
  versions: number;
  participants?: Participant[];
  custodians?: string[];
  threadKey: string;
  objects: number;
  receipts: number;
  legs?: Leg[];
  call?: CallFacts;
  disposed?: Disposed;
}

export interface ConversationList {
  conversations: Conversation[];
  cursor?: string;
}

export interface Attached {
  id: string;
  kind: "file" | "loop" | "image" | "emoji" | "snippet" | "card-image" | "card" | "quote" | "meeting" | "other";
  name?: string;
  state: "expected" | "fetched" | "gap" | "message" | "unfetched";
  reason?: "foreign-host" | "malformed" | "external-tenant" | "forbidden" | "protected" | "gone" | "no-file" | "too-large" | "altered" | "unavailable";
  size?: number;
  sha256?: string;
  rule?: "current" | "at-sending" | "later" | "hosted";
  file?: string;
}

export interface Version {
  etag: string;
  modified: string | null;
  edited?: string;
  deleted?: string;
  html: string;
  text: string;
  subject?: string;
  reactions?: string[];
  attached?: Attached[];
  custodian: string;
  capturedAt: string;
  sha256: string;
}

export interface Message {
  id: string;
  sent: string;
  type: string;
  from: Participant;
  unclear?: boolean;
  versions: Version[];
}

export interface Messages {
  conversation: Conversation;
  messages: Message[] | null;
  pending?: number;
  truncated?: boolean;
  event: string;
}

export interface CallFacts {
  chain: string;
  direction: "internal" | "external" | "federatedIn" | "federatedOut" | "pstnIn" | "pstnOut" | "conference";
  running?: boolean;
  outcome?: "recorded" | "empty" | "excluded" | "lost";
  subject?: string;
  numbers?: string[];
  legs: number;
  lost?: number;
  previous?: string;
}

export interface Leg {
  leg: string;
  recorded: Participant;
  state: "running" | "sealed";
  outcome?: "recorded" | "empty" | "excluded" | "lost";
  reason?: string;
  started: string;
  from?: string;
  to?: string;
  lostMs: number;
  copyOf?: string;
  recorder: string;
}

export interface Gap {
  from: string;
  to: string;
  kind: "lost" | "inactive" | "muted" | "held" | "absent" | "paused" | "policy";
  frames?: number;
  reason?: string;
  actor?: string;
}

export interface Interval {
  from: string;
  to?: string;
}

export interface Lane {
  id: string;
  kind: "audio" | "video" | "screen";
  party?: Participant;
  from: string;
  to: string;
  codec: string;
  width?: number;
  height?: number;
  tracks: string[];
  gaps: Gap[];
  playlist: string;
  byLine?: boolean;
}

export interface Presence {
  id: string;
  name?: string;
  kind?: string;
  present: Interval[];
  muted: Interval[];
  held: Interval[];
  lobby?: boolean;
}

export interface LegEvent {
  at: string;
  kind: string;
  reason?: string;
  actor?: string;
  actorName?: string;
}

export interface Player {
  leg: string;
  state: "running" | "sealed";
  outcome?: "recorded" | "empty" | "excluded" | "lost";
  reason?: string;
  epoch?: string;
  from?: string;
  to?: string;
  master?: string;
  peaks: boolean;
  lanes: Lane[];
  people: Presence[];
  events: LegEvent[];
  event: string;
}

export interface TrackPeaks {
  from: string;
  peaks: string;
  bad?: number;
  track: string;
}

export interface Peaks {
  perSecond: number;
  tracks: TrackPeaks[];
}

export interface CustodyEvent {
  id: string;
  at: string;
  tenant: string;
  action: string;
  actor?: string;
  system?: string;
  item: string;
  reason?: string;
  session?: string;
  detail?: string;
  objects?: {
    commit?: string;
    object: string;
    seq: number;
    sha256?: string;
    unit: string;
    void?: boolean;
  }[];
}

export interface CustodyTrail {
  events: CustodyEvent[];
  cursor?: string;
  people: Named[];
}

export interface Matter {
  id: string;
  title: string;
  custodians?: string[];
  conversations?: string[];
  from?: string;
  to?: string;
  state: "placed" | "releaseRequested" | "released" | "lifted";
  placedBy: string;
  placedAt: string;
  request?: string;
  releasedAt?: string;
  liftedAt?: string;
}

export interface Matters {
  matters: Matter[];
  people: Named[];
}

export interface ApprovalRequest {
  request: string;
  action: "release-hold" | "erase" | "export" | "dispose";
  ids: string[];
  parameters: {
    matter?: string;
    ground?: string;
    notLocked?: string;
  };
  reason: string;
  requester: string;
  madeAt: string;
  expires: string;
  state: "pending" | "approved" | "executed" | "refused";
  approver?: string;
  approvedAt?: string;
  outcome?: string;
}

export interface ApprovalRequests {
  requests: ApprovalRequest[];
  people: Named[];
}

export interface PlaceHold {
  title: string;
  custodians?: string[];
  conversations?: string[];
  from?: string;
  to?: string;
}

export interface Reason {
  reason: string;
}

export interface Approve {
  request: string;
}

export type Reject = Record<never, never>;

export interface Named {
  id: string;
  name: string;
}

export interface Export {
  id: string;
  requester: string;
  case: string;
  reason: string;
  conversations: number;
  encrypted: boolean;
  state: "requested" | "approved" | "building" | "ready" | "failed" | "expired";
  madeAt: string;
  request?: string;
  size?: number;
  sha256?: string;
  expires?: string;
  failure?: string;
}

export interface Exports {
  exports: Export[];
  people: Named[];
}

export interface OrderExport {
  case: string;
  reason: string;
  conversations: string[];
  checkpoints?: number[];
  recipient?: string;
}

export interface RequestErasure {
  conversations: string[];
  ground: string;
  notLocked?: boolean;
  reason: string;
}

export interface Disposed {
  at: string;
  ground: "expiry" | "erasure";
  policy: string;
  event: string;
}

export interface DataPolicy {
  name: string;
  modalities: string[];
  desks: string[];
  keep: string;
  starts: string;
}

export interface ProposedPolicy {
  name: string;
  modalities?: string[];
  desks?: string[];
  keep: string;
  starts?: string;
}

export interface DataPolicies {
  policies: DataPolicy[];
}

export interface PreviewPolicies {
  policies: ProposedPolicy[];
}

export interface PolicyPreview {
  truncated?: boolean;
  rows: {
    policy: string;
    modality: string;
    conversations: number;
    extended: number;
    unchanged: number;
    kept: number;
    due: number;
  }[];
}

export interface RetentionEvent {
  event: string;
  at: string;
}

export interface CoverageReason {
  code: string;
  count: number;
}

export interface CoverageTotal {
  modality: "chat" | "channel" | "file" | "call";
  unit: "seconds" | "versions" | "items" | "stays";
  expected: number;
  captured: number;
  excluded: number;
  failed: number;
  unknown: number;
  reasons?: CoverageReason[];
}

export interface CoverageLine {
  custodian: string;
  team?: boolean;
  desks: string[];
  modality: "chat" | "channel" | "file" | "call";
  unit: "seconds" | "versions" | "items" | "stays";
  expected: number;
  captured: number;
  excluded: number;
  failed: number;
  unknown: number;
  reasons?: CoverageReason[];
}

export interface SecondPass {
  seconds: number;
  late: number;
}

export interface CoverageDay {
  day: string;
  revision: number;
  from: string;
  to: string;
  madeAt: string;
  complete: boolean;
  whole: boolean;
  totals: CoverageTotal[];
  secondPass: SecondPass;
  canary: "off" | "alive" | "missing";
}

export interface CoverageDays {
  days: CoverageDay[];
}

export interface BlindSpot {
  code: string;
  text: string;
}

export interface CaptureGap {
  person: string;
  from: string;
  to: string;
  state: "captured" | "excluded" | "failed" | "unknown";
  code?: string;
  missingMs: number;
  conversation?: string;
  healed?: string;
}

export interface Coverage {
  day: string;
  revision: number;
  from: string;
  to: string;
  madeAt: string;
  complete: boolean;
  whole: boolean;
  totals: CoverageTotal[];
  secondPass: SecondPass;
  canary: "off" | "alive" | "missing";
  lines: CoverageLine[];
  blindSpots: BlindSpot[];
  gaps: CaptureGap[];
  people: Named[];
  signed: boolean;
}

export interface Occurrence {
  calls: {
    id: string;
    subject?: string;
    first: string;
    last: string;
    running?: boolean;
  }[];
  chats: string[];
  from: string;
  to: string;
}

export interface Unread {
  from: string;
  to: string;
  status: number;
  code: string;
  since: string;
  at: string;
}

export interface Lookback {
  id: string;
  users: number;
  groups: number;
  teams: number;
  custodians: number;
  from: string;
  to: string;
  reason: string;
  requestedBy?: string;
  state: "queued" | "running" | "done" | "canceled" | "refused";
  refusal?: string;
  madeAt: string;
  endedAt?: string;
  windows: number;
  finished: number;
  returned: number;
  new: number;
  unclear: number;
  failed: number;
}

export interface Lookbacks {
  lookbacks: Lookback[];
  people: Named[];
}

export interface StartLookback {
  users?: string[];
  teams?: string[];
  from: string;
  to: string;
  reason: string;
}

export type CancelLookback = Record<never, never>;

/** Every path of the API that can be read, with what a GET of it takes and answers. */
export interface Paths {
  /** who the caller is and what she may do */
  "/session": {
    path: Record<never, never>;
    query: Record<never, never>;
    answer: Session;
  };
  /** recorded users whose conversations the caller may see */
  "/people": {
    path: Record<never, never>;
    query: Record<never, never>;
    answer: People;
  };
  /** custody events the caller may see, oldest first */
  "/custody": {
    path: Record<never, never>;
    query: {
      from?: string;
      to?: string;
      actor?: string;
      action?: string;
      item?: string;
      limit?: number;
      cursor?: string;
    };
    answer: CustodyTrail;
  };
  /** the same as a table */
  "/custody.csv": {
    path: Record<never, never>;
    query: {
      from?: string;
      to?: string;
      actor?: string;
      action?: string;
      item?: string;
      limit?: number;
      cursor?: string;
    };
    answer: string;
  };
  /** conversations, newest first */
  "/conversations": {
    path: Record<never, never>;
    query: {
      from?: string;
      to?: string;
      person?: string;
      limit?: number;
      cursor?: string;
    };
    answer: ConversationList;
  };
  /** the days of one thread, newest first */
  "/threads/{thread}/conversations": {
    path: {
      thread: string;
    };
    query: {
      limit?: number;
      cursor?: string;
    };
    answer: ConversationList;
  };
  /** facts of one conversation */
  "/conversations/{id}": {
    path: {
      id: string;
    };
    query: Record<never, never>;
    answer: ConversationDetail;
  };
  /** what belongs to one occurrence of a meeting: its calls, and the days of its chat */
  "/conversations/{id}/occurrence": {
    path: {
      id: string;
    };
    query: Record<never, never>;
    answer: Occurrence;
  };
  /** content: every version of every message */
  "/conversations/{id}/messages": {
    path: {
      id: string;
    };
    query: Record<never, never>;
    answer: Messages;
  };
  /** content: the exact bytes that Graph sent */
  "/conversations/{id}/messages/{message}/versions/{etag}/original": {
    path: {
      id: string;
      message: string;
      etag: string;
    };
    query: Record<never, never>;
    answer: Blob;
  };
  /** the bytes of an attachment, whole if it is small or one range of it */
  "/conversations/{id}/attachments/{attachment}/file": {
    path: {
      id: string;
      attachment: string;
    };
    query: Record<never, never>;
    answer: Blob;
  };
  /** content: lanes, gaps and who was there when, of one leg */
  "/conversations/{id}/legs/{leg}": {
    path: {
      id: string;
      leg: string;
    };
    query: Record<never, never>;
    answer: Player;
  };
  /** content: peaks of the audio tracks of one leg */
  "/conversations/{id}/legs/{leg}/peaks": {
    path: {
      id: string;
      leg: string;
    };
    query: Record<never, never>;
    answer: Peaks;
  };
  /** master.m3u8: the multivariant playlist of one leg (RFC 8216) */
  "/conversations/{id}/legs/{leg}/{file}": {
    path: {
      id: string;
      leg: string;
      file: string;
    };
    query: {
      video?: string;
    };
    answer: string;
  };
  /** LANE.m3u8: the playlist of one lane; of audio also mixed.m3u8 */
  "/conversations/{id}/legs/{leg}/{kind}/{file}": {
    path: {
      id: string;
      leg: string;
      kind: "audio" | "video" | "screen";
      file: string;
    };
    query: Record<never, never>;
    answer: string;
  };
  /** a segment of a lane: SEQ-PART.m4s, and init.mp4 or SEQ-PART.mp4 */
  "/conversations/{id}/legs/{leg}/{kind}/{lane}/{file}": {
    path: {
      id: string;
      leg: string;
      kind: "audio" | "video" | "screen";
      lane: string;
      file: string;
    };
    query: Record<never, never>;
    answer: Blob;
  };
  /** the plain bytes of one bundle as sealed, whole or one range */
  "/conversations/{id}/legs/{leg}/bundles/{name}": {
    path: {
      id: string;
      leg: string;
      name: string;
    };
    query: Record<never, never>;
    answer: Blob;
  };
  /** legal holds, the newest first */
  "/matters": {
    path: Record<never, never>;
    query: Record<never, never>;
    answer: Matters;
  };
  /** requests that wait for a second person or for their time */
  "/approvals": {
    path: Record<never, never>;
    query: Record<never, never>;
    answer: ApprovalRequests;
  };
  /** orders of export packages, the newest first */
  "/exports": {
    path: Record<never, never>;
    query: Record<never, never>;
    answer: Exports;
  };
  /** a finished export package, whole if it is small or one range of it */
  "/exports/{export}/package": {
    path: {
      export: string;
    };
    query: Record<never, never>;
    answer: Blob;
  };
  /** data management policies in force */
  "/policies": {
    path: Record<never, never>;
    query: Record<never, never>;
    answer: DataPolicies;
  };
  /** coverage statements of days, newest first, as far as the caller may see */
  "/coverage": {
    path: Record<never, never>;
    query: {
      from?: string;
      to?: string;
    };
    answer: CoverageDays;
  };
  /** the newest coverage statement of a day, custodian by custodian */
  "/coverage/{day}": {
    path: {
      day: string;
    };
    query: Record<never, never>;
    answer: Coverage;
  };
  /** the statement as it was signed, or the signature over it (DER) */
  "/coverage/{day}/{part}": {
    path: {
      day: string;
      part: "statement" | "signature";
    };
    query: Record<never, never>;
    answer: Blob;
  };
  /** look-backs, the newest first */
  "/lookbacks": {
    path: Record<never, never>;
    query: Record<never, never>;
    answer: Lookbacks;
  };
}

/** Every path of the API that changes something, with what a POST to it takes and answers. */
export interface Changes {
  /** place a legal hold */
  "/matters": {
    path: Record<never, never>;
    query: Record<never, never>;
    body: PlaceHold;
    answer: Matter;
  };
  /** ask for the end of a legal hold */
  "/matters/{matter}/release": {
    path: {
      matter: string;
    };
    query: Record<never, never>;
    body: Reason;
    answer: ApprovalRequest;
  };
  /** agree, as a second person, to exactly the request of this digest */
  "/approvals/{request}/approve": {
    path: {
      request: string;
    };
    query: Record<never, never>;
    body: Approve;
    answer: ApprovalRequest;
  };
  /** say that a request will not be granted */
  "/approvals/{request}/reject": {
    path: {
      request: string;
    };
    query: Record<never, never>;
    body: Reject;
    answer: ApprovalRequest;
  };
  /** order an export package */
  "/exports": {
    path: Record<never, never>;
    query: Record<never, never>;
    body: OrderExport;
    answer: Export;
  };
  /** ask for the erasure of conversations; a second person must agree */
  "/erasures": {
    path: Record<never, never>;
    query: Record<never, never>;
    body: RequestErasure;
    answer: ApprovalRequest;
  };
  /** what other policies would do, in counts; changes nothing */
  "/policies/preview": {
    path: Record<never, never>;
    query: Record<never, never>;
    body: PreviewPolicies;
    answer: PolicyPreview;
  };
  /** record that an event came about that a policy waits for */
  "/conversations/{id}/events": {
    path: {
      id: string;
    };
    query: Record<never, never>;
    body: RetentionEvent;
    answer: RetentionEvent;
  };
  /** read history of recorded people or teams */
  "/lookbacks": {
    path: Record<never, never>;
    query: Record<never, never>;
    body: StartLookback;
    answer: Lookback;
  };
  /** end a look-back before its time */
  "/lookbacks/{lookback}/cancel": {
    path: {
      lookback: string;
    };
    query: Record<never, never>;
    body: CancelLookback;
    answer: Lookback;
  };
}

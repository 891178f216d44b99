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

export type Role = "recordedUser" | "supervisor" | "complianceOfficer" | "administrator" | "auditor";

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
  kind: "oneOnOne" | "group" | "meeting" | "channel" | "other";
  modality: "chat";
  start: string;
  first: string;
  last: string;
  versions: number;
  participants?: Participant[];
  custodians?: string[];
}

export interface ConversationDetail {
  id: string;
  thread: string;
  kind: "oneOnOne" | "group" | "meeting" | "channel" | "other";
  modality: "chat";
  start: string;
  first: string;
  last: string;
  versions: number;
  participants?: Participant[];
  custodians?: string[];
  threadKey: string;
  objects: number;
  receipts: number;
}

export interface ConversationList {
  conversations: Conversation[];
  cursor?: string;
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
  attached?: string[];
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

/** Every path of the API, with what a GET of it takes and answers. */
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
}

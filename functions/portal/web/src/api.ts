import type { Changes, Paths } from "./api-types";
import { at } from "./base";
import type { SignIn } from "./signin";

/** What the API answers in place of what was asked for. Status 0 is no answer at all. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    title: string,
    readonly detail = "",
    readonly retryAfter = 5,
  ) {
    super(title);
  }
}

type ChangeArgs<P extends keyof Changes> = Pick<Changes[P], "body"> & Partial<Pick<Changes[P], "path">>;

type Args<P extends keyof Paths> = Partial<Pick<Paths[P], "path" | "query">>;

function address(path: string, args: { path?: object; query?: object }): string {
  const filled = path.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(String((args.path as Record<string, unknown>)[name])));
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(args.query ?? {})) {
    if (value !== undefined && value !== "") query.set(name, String(value));
  }
  return at("v1" + filled) + (query.size > 0 ? `?${query}` : "");
}

async function problem(response: Response): Promise<ApiError> {
  const retryAfter = Number(response.headers.get("Retry-After")) || 5;
  try {
    const body = (await response.json()) as { title?: string; detail?: string };
    return new ApiError(response.status, body.title ?? response.statusText, body.detail ?? "", retryAfter);
  } catch {
    return new ApiError(response.status, response.statusText || `Status ${response.status}`, "", retryAfter);
  }
}

/** The API, asked in the name of who is signed in. */
export class Api {
  constructor(private readonly signIn: SignIn) {}

  /** Who is signed in, for those who make requests of their own. */
  get identity(): SignIn {
    return this.signIn;
  }

  async get<P extends keyof Paths>(path: P, args: Args<P> = {}, signal?: AbortSignal): Promise<Paths[P]["answer"]> {
    const response = await this.send(address(path, args), signal);
    return (await response.json()) as Paths[P]["answer"];
  }

  /** Changes something. It is never tried again by itself. */
  async post<P extends keyof Changes>(path: P, args: ChangeArgs<P>): Promise<Changes[P]["answer"]> {
    const response = await this.once(address(path, args), await this.signIn.token(true), undefined, JSON.stringify(args.body));
    if (!response.ok) throw await problem(response);
    return (await response.json()) as Changes[P]["answer"];
  }

  /** The trail as a table for spreadsheets. */
  async trailTable(query: Paths["/custody.csv"]["query"]): Promise<ArrayBuffer> {
    const response = await this.send(address("/custody.csv", { query }));
    return await response.arrayBuffer();
  }

  /** The newest coverage statement of a day as it was signed, or the signature over it. */
  async statement(day: string, part: "statement" | "signature"): Promise<ArrayBuffer> {
    const response = await this.send(address("/coverage/{day}/{part}", { path: { day, part } }));
    return await response.arrayBuffer();
  }

  /** A finished export package, piece by piece: no answer is larger than a few megabytes. */
  async exportPackage(id: string, size: number, told: (done: number) => void): Promise<Blob> {
    return await this.pieces(address("/exports/{export}/package", { path: { export: id } }), size, told);
  }

  /** The bytes of an attachment, piece by piece. */
  async attachment(path: Paths["/conversations/{id}/attachments/{attachment}/file"]["path"], size: number, told: (done: number) => void): Promise<Blob> {
    return await this.pieces(address("/conversations/{id}/attachments/{attachment}/file", { path }), size, told);
  }

  private async pieces(url: string, size: number, told: (done: number) => void): Promise<Blob> {
    const piece = 4 << 20;
    const pieces: ArrayBuffer[] = [];
    for (let off = 0; off < size; off += piece) {
      const range = `bytes=${off}-${Math.min(off + piece, size) - 1}`;
      const response = await this.send(url, undefined, range);
      pieces.push(await response.arrayBuffer());
      told(Math.min(off + piece, size));
    }
    return new Blob(pieces, { type: "application/octet-stream" });
  }

  /** The exact bytes of a version, as Graph sent them. */
  async original(path: Paths["/conversations/{id}/messages/{message}/versions/{etag}/original"]["path"]): Promise<ArrayBuffer> {
    const response = await this.send(address("/conversations/{id}/messages/{message}/versions/{etag}/original", { path }));
    return await response.arrayBuffer();
  }

  private async send(url: string, signal?: AbortSignal, range?: string): Promise<Response> {
    let response = await this.once(url, await this.signIn.token(), signal, undefined, range);
    if (response.status === 401) response = await this.once(url, await this.signIn.token(true), signal, undefined, range);
    if (!response.ok) throw await problem(response);
    return response;
  }

  private async once(url: string, token: string | null, signal?: AbortSignal, body?: string, range?: string): Promise<Response> {
    if (!token) throw new ApiError(401, "Sign in");
    try {
      return await fetch(url, {
        method: body === undefined ? "GET" : "POST",
        headers: { Authorization: `Bearer ${token}`, Accept: "application/json", ...(body === undefined ? {} : { "Content-Type": "application/json" }), ...(range ? { Range: range } : {}) },
        body: body ?? null,
        cache: "no-store",
        credentials: "omit",
        signal: signal ?? null,
      });
    } catch (e) {
      if (signal?.aborted) throw e;
      throw new ApiError(0, "No answer");
    }
  }
}

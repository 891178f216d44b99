import { createContext, use, useCallback, useEffect, useState } from "react";
import { type Api, ApiError } from "./api";
import type { Person, Session } from "./api-types";

/** What every page needs: the API, who asks, and what people are called. */
export interface Portal {
  api: Api;
  session: Session;
  people: Person[];
  signIn: () => void;
}

export const PortalContext = createContext<Portal | null>(null);

export function usePortal(): Portal {
  const portal = use(PortalContext);
  if (!portal) throw new Error("no portal around this page");
  return portal;
}

export interface Loading<T> {
  data: T | null;
  error: ApiError | null;
  again: () => void;
}

/** Wraps what a request threw, unless it was only called off. */
export function asApiError(e: unknown, signal?: AbortSignal): ApiError | null {
  if (signal?.aborted) return null;
  return e instanceof ApiError ? e : new ApiError(0, "No answer");
}

/**
 * Loads once per load, which the caller keeps stable, and again when asked. An answer
 * of 429 is asked again by itself after the time it names.
 */
export function useLoading<T>(load: (signal: AbortSignal) => Promise<T>): Loading<T> {
  const [state, setState] = useState<{ data: T | null; error: ApiError | null }>({ data: null, error: null });
  const [round, setRound] = useState(0);
  const again = useCallback(() => setRound((n) => n + 1), []);
  useEffect(() => {
    const abort = new AbortController();
    let retry: number | undefined;
    setState({ data: null, error: null });
    load(abort.signal).then(
      (data) => {
        if (!abort.signal.aborted) setState({ data, error: null });
      },
      (e: unknown) => {
        const error = asApiError(e, abort.signal);
        if (!error) return;
        setState({ data: null, error });
        if (error.status === 429) retry = window.setTimeout(again, error.retryAfter * 1000);
      },
    );
    return () => {
      abort.abort();
      window.clearTimeout(retry);
    };
  }, [load, round, again]);
  return { ...state, again };
}

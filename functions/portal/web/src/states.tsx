import { Button, Spinner } from "@fluentui/react-components";
import { type ReactNode, useEffect, useState } from "react";
import type { ApiError } from "./api";

/** A page or part of one that has nothing to show, and says why and what to do. */
export function Notice({ title, children, actions }: { title: string; children?: ReactNode; actions?: ReactNode }) {
  return (
    <div className="notice">
      <h2>{title}</h2>
      {children}
      {actions && <div className="actions">{actions}</div>}
    </div>
  );
}

export function Busy({ label }: { label: string }) {
  return (
    <div className="busy">
      <Spinner label={label} labelPosition="after" size="small" />
    </div>
  );
}

/** What a failed request means to the reader. */
export function Failure({ error, again, signIn }: { error: ApiError; again: () => void; signIn: () => void }) {
  return <div role="alert">{failure(error, again, signIn)}</div>;
}

function failure(error: ApiError, again: () => void, signIn: () => void) {
  switch (error.status) {
    case 401:
      return (
        <Notice title="Your sign-in has ended" actions={<Button appearance="primary" onClick={signIn}>Sign in again</Button>}>
          <p>Sign in to go on where you were.</p>
        </Notice>
      );
    case 404:
      return (
        <Notice title="Nothing to see here">
          <p>There is no such conversation, or it is not yours to see.</p>
        </Notice>
      );
    case 429:
      return <Waiting seconds={error.retryAfter} />;
    case 400:
      return (
        <Notice title="This request cannot be answered">
          <p>{error.detail}</p>
        </Notice>
      );
    default:
      return (
        <Notice title="The archive does not answer" actions={<Button onClick={again}>Try again</Button>}>
          <p>{error.detail || "Try again in a moment."} Nothing is lost: recording does not depend on this page.</p>
        </Notice>
      );
  }
}

/** What a change was answered with, in the words of whoever refused it. */
export function refusal(error: ApiError): string {
  if (error.status === 0 || error.status >= 500) return "The archive does not answer. Nothing was changed as far as this page knows; look again before you repeat it.";
  if (error.status === 401) return "Your sign-in has ended. Sign in again and repeat it.";
  return error.detail || "Refused.";
}

function Waiting({ seconds }: { seconds: number }) {
  const [left, setLeft] = useState(seconds);
  useEffect(() => {
    const tick = window.setInterval(() => setLeft((n) => Math.max(0, n - 1)), 1000);
    return () => window.clearInterval(tick);
  }, []);
  return (
    <Notice title="Too many requests">
      <p>This page asks again by itself in a few seconds.</p>
      <p aria-hidden="true">{left} s</p>
    </Notice>
  );
}

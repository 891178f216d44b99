import { Badge, Button, MessageBar, MessageBarBody } from "@fluentui/react-components";
import { useCallback, useEffect, useState } from "react";
import type { ApprovalRequest, Named } from "./api-types";
import { asApiError, useLoading, usePortal } from "./loading";
import { Busy, Failure, Notice, refusal } from "./states";
import { calledIn, formatDateTime, plural } from "./words";

const actions: Record<ApprovalRequest["action"], string> = {
  "release-hold": "Release a legal hold",
  erase: "Erase conversations",
  export: "Export conversations",
  dispose: "Dispose more than a day's share",
};

/** What waits for a second person. */
export function ApprovalsPage() {
  const { api, signIn } = usePortal();
  useEffect(() => {
    document.title = "Approvals - Steno";
  }, []);
  const { data, error, again } = useLoading(useCallback((signal: AbortSignal) => api.get("/approvals", {}, signal), [api]));
  return (
    <>
      <h1>Approvals</h1>
      <p className="lead">Some things take two persons: who asked cannot agree. You agree to exactly what stands here; if it changes, your agreement is void.</p>
      {error ? (
        <Failure error={error} again={again} signIn={signIn} />
      ) : !data ? (
        <Busy label="Reading what waits" />
      ) : data.requests.length === 0 ? (
        <Notice title="Nothing waits for approval" />
      ) : (
        <ul className="plain requests">
          {data.requests.map((r) => <Request key={r.request} request={r} named={data.people} changed={again} />)}
        </ul>
      )}
    </>
  );
}

function Request({ request: r, named, changed }: { request: ApprovalRequest; named: Named[]; changed: () => void }) {
  const { api, session, people } = usePortal();
  const [busy, setBusy] = useState(false);
  const [failed, setFailed] = useState("");
  const own = r.requester === session.person;
  const officer = session.roles.includes("complianceOfficer");
  const decide = async (work: () => Promise<unknown>) => {
    setBusy(true);
    setFailed("");
    try {
      await work();
      changed();
    } catch (e) {
      const error = asApiError(e);
      if (error) setFailed(refusal(error));
      setBusy(false);
    }
  };
  const path = { request: r.request };
  return (
    <li className="panel">
      <h2>{actions[r.action]}</h2>
      <dl className="pairs">
        <div><dt>Asked for by</dt><dd>{own ? "You" : calledIn(named, people, r.requester)}, <time dateTime={r.madeAt}>{formatDateTime(r.madeAt)}</time></dd></div>
        <div><dt>Reason</dt><dd>{r.reason}</dd></div>
        {r.parameters.ground && <div><dt>Ground</dt><dd>{r.parameters.ground}</dd></div>}
        <div>
          <dt>About</dt>
          <dd>
            {r.ids.slice(0, 10).map((id) => <span key={id} className="mono stacked">{id}</span>)}
            {r.ids.length > 10 && <span>and {plural(r.ids.length - 10, "more item")}</span>}
          </dd>
        </div>
        <div><dt>Runs out</dt><dd><time dateTime={r.expires}>{formatDateTime(r.expires)}</time></dd></div>
        <div><dt>Digest</dt><dd className="mono">{r.request}</dd></div>
      </dl>
      {failed && <MessageBar intent="error"><MessageBarBody>{failed}</MessageBarBody></MessageBar>}
      {r.state === "approved" ? (
        <Badge appearance="tint" color="success">Approved by {calledIn(named, people, r.approver ?? "")}; waits for its time</Badge>
      ) : officer ? (
        <div className="actions">
          {own ? (
            <span>You asked for this: another compliance officer must agree.</span>
          ) : (
            <Button appearance="primary" disabled={busy} onClick={() => void decide(() => api.post("/approvals/{request}/approve", { path, body: { request: r.request } }))}>Approve</Button>
          )}
          <Button disabled={busy} onClick={() => void decide(() => api.post("/approvals/{request}/reject", { path, body: {} }))}>Reject</Button>
        </div>
      ) : (
        <Badge appearance="tint" color="warning">Waits for a second person</Badge>
      )}
    </li>
  );
}

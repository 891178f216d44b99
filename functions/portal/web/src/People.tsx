import { Badge } from "@fluentui/react-components";
import { useEffect } from "react";
import { Link } from "wouter";
import type { Period, Person } from "./api-types";
import { usePortal } from "./loading";
import { Notice } from "./states";
import { formatDate, formatDateTime, plural } from "./words";

/** The recorded users that the reader may know of, and since when each is recorded. */
export function PeoplePage() {
  const { people, session } = usePortal();
  useEffect(() => {
    document.title = "Recorded users - Steno";
  }, []);
  const missing = people.filter((p) => !p.team && !p.communicationsDlp).length;
  const teams = people.filter((p) => p.team).length;
  const persons = people.length - teams;
  return (
    <>
      <h1>Recorded users</h1>
      {people.length === 0 ? (
        <Notice title="No recorded users">
          <p>{session.roles.includes("administrator") ? "Group sync has found nobody in the groups of recorded users yet." : "No recorded user is assigned to you."}</p>
        </Notice>
      ) : (
        <>
          <p className="lead">
            {plural(persons, "person", "people")} {persons === 1 && teams === 0 ? "is" : "are"} or {persons === 1 && teams === 0 ? "was" : "were"} recorded{teams > 0 && `, and the channels of ${plural(teams, "team")}`}.
            {missing > 0 && ` ${plural(missing, "person lacks", "people lack")} the Communications DLP plan, which Microsoft asks for when chats are exported.`}
          </p>
          <table className="grid people" role="table">
            <thead role="rowgroup">
              <tr role="row">
                <th role="columnheader" scope="col">Name</th>
                <th role="columnheader" scope="col">Recorded</th>
                <th role="columnheader" scope="col">State</th>
              </tr>
            </thead>
            <tbody role="rowgroup">
              {people.map((p) => <Row key={p.id} person={p} link={session.seesContent} />)}
            </tbody>
          </table>
        </>
      )}
    </>
  );
}

function Row({ person, link }: { person: Person; link: boolean }) {
  const name = person.name || person.id;
  const recordedNow = person.periods.some((p) => !p.to);
  return (
    <tr role="row">
      <th role="rowheader" scope="row">
        {link ? <Link href={`/?person=${person.id}`}>{name}</Link> : name}
        <span className="sub">{person.team ? "Team" : person.address}</span>
      </th>
      <td role="cell">
        <ul className="plain">
          {person.periods.map((p) => <li key={`${p.desk}${p.from}`}>{period(p)}</li>)}
        </ul>
      </td>
      <td role="cell">
        <span className="badges">
          {recordedNow ? <Badge appearance="tint" color="success">Recorded</Badge> : <Badge appearance="tint" color="subtle">No longer recorded</Badge>}
          {person.capture === "deleted" ? <Badge appearance="tint" color="danger">Deleted {person.deleted && formatDate(person.deleted)}</Badge> : !person.enabled && <Badge appearance="tint" color="subtle">Account disabled</Badge>}
          {person.capture === "guest" && <Badge appearance="tint" color="warning">Guest</Badge>}
          {person.lostPlan && <Badge appearance="tint" color="warning">Plan lost {formatDate(person.lostPlan)}</Badge>}
          {!person.team && !person.communicationsDlp && <Badge appearance="tint" color="warning">Communications DLP plan missing</Badge>}
        </span>
        {person.unread.map((u) => (
          <span className="sub" key={u.from}>
            Not read: <time dateTime={u.from}>{formatDateTime(u.from)}</time> to <time dateTime={u.to}>{formatDateTime(u.to)}</time>, Graph answered {u.status || "nothing"} {u.code}; last tried {formatDateTime(u.at)}
          </span>
        ))}
      </td>
    </tr>
  );
}

function period(p: Period) {
  return (
    <>
      {p.desk && <span className="desk">{p.desk}: </span>}
      {p.to ? "from " : "since "}
      <time dateTime={p.from} title={formatDateTime(p.from)}>{formatDate(p.from)}</time>
      {p.to && <> to <time dateTime={p.to} title={formatDateTime(p.to)}>{formatDate(p.to)}</time></>}
    </>
  );
}

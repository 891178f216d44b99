// Package host is a stand-in for the Azure Functions host: it runs a staged app, the built executable included, as the real one does.
//
// It loads host.json and the function.json of each direct child folder, starts the executable with the host's environment, waits for
// readiness, and invokes functions: by timers of its own, from Service Bus and Storage queues through the real client libraries, and
// over HTTP through a reverse proxy. What it knows of the wire comes from the source of azure-functions-host 4.x: JSON encoded twice,
// times without a zone, chunked bodies, message fields that overwrite metadata, answers that must have a body and a JSON type, three
// errors and out. Where the real host would hang for ever, as on an empty answer or an exit with 0, the stand-in says so at once.
//
// What it does not do: sessions, topics, batches (cardinality many), output bindings to anything but an HTTP answer, retry policies
// other than a timer's, keys other than one master and one function key, scaling. Timers forget their last run when the host stops.
// A queue message is hidden for the whole function timeout instead of being renewed, and a proxied HTTP call is timed until its
// answer begins, not between its pieces.
package host

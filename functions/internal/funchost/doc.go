// Package funchost speaks the custom-handler protocol of the Azure Functions host, so that no other package has to.
//
// The host starts the handler, polls GET / until anything answers, and then sends two kinds of requests to one port: timer and queue
// invocations as POST /<function> with a JSON envelope, and, because host.json sets enableProxyingHttpRequest, every HTTP call with its
// original path. The package keeps the two apart on the spelling of the request target (see [Mux.Handler]), so that nobody outside can
// forge an invocation, and turns what a function returns into what the host understands:
//
//	nil                          200 with a JSON body: the message is completed
//	an error                     500: the message is abandoned and delivered again, dead-lettered by the broker in the end
//	an error wrapping ErrPoison  Config.Park keeps the message with its reason, then 200; 500 if it could not be kept
//	a panic                      500, the stack in the log; other invocations go on
//
// An answer always has a body and a JSON content type: the host waits for ever on an empty body, a null or a 204
// (azure-functions-host, DefaultHttpWorkerService: the result is only set "if (result != null)") and refuses text/plain.
//
// There are no output bindings. The host decodes every output string that happens to be valid base64 into bytes, and applies outputs
// after the function has returned, out of reach of its error handling. So the answer is a constant without outputs, and functions send
// messages through their own clients before they return: that is the whole guard against the base64 trap.
//
// The host passes no cancellation and kills the process, with every invocation in it, when one exceeds functionTimeout. So each
// invocation's context ends Config.Margin earlier. A function that ignores its context is not answered for: an answer would make the
// host deliver the message a second time while the first run still works on it.
//
// # Logs
//
// The host takes a line on stdout as Information and a line on stderr as Error, and knows no other level. [NewLog] writes JSON lines to
// stdout with function and invocation id on each.
//
// # Exit codes
//
// An exit with 0 leaves the app dead: the host neither restarts the handler nor fails its calls. 200 asks for a restart that is not
// counted, any other code counts as one of three errors after which the host stops itself (azure-functions-host, HttpWorkerProcess and
// HttpFunctionInvocationDispatcher). A main therefore ends with os.Exit(funchost.ExitCode(err)), which is never 0.
package funchost

package msgraph

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"steno/shared/teams"
)

// Error codes of the calling API. Graph documents none of them; they are what its
// answers carry.
const (
	CodeNoPermission    = "7504"
	CodeTenantMismatch  = "7505"
	CodeNoRecordingCall = "8506"
	CodeCallNotFound    = "8522"
)

// meanings says what to do about the codes above.
var meanings = map[string]string{
	CodeNoPermission:    "the tenant has not consented to the permissions that calls need",
	CodeTenantMismatch:  "the token is of another tenant than the call",
	CodeNoRecordingCall: "the recorder was not invited to this call by a recording policy",
	CodeCallNotFound:    "the call has ended, or was answered too late",
}

// Limits of one operation on a call.
const (
	callAnswerBytes  = 1 << 20
	maxCallBlob      = 256 << 10
	callAttempt      = 10 * time.Second       // one attempt
	callTime         = 30 * time.Second       // all attempts, where ctx has no deadline
	callRetryWait    = 200 * time.Millisecond // doubled with each attempt
	callRetryLongest = 30 * time.Second
)

// CallGone reports whether an error says that the call is over for the recorder.
func CallGone(err error) bool {
	var e *Error
	return errors.As(err, &e) && (e.Status == http.StatusNotFound || e.Code == CodeCallNotFound)
}

// RecordingStatus is what the participants of a call are told about recording.
type RecordingStatus string

// The statuses that updateRecordingStatus takes.
const (
	StatusNotRecording RecordingStatus = "notRecording"
	StatusRecording    RecordingStatus = "recording"
	StatusFailed       RecordingStatus = "failed"
)

// Answer is what the recorder answers an invite with.
type Answer struct {
	CallbackURI string // https; receives the call's later notifications
	// Blob is the media configuration as the media platform made it. It is passed on
	// byte for byte.
	Blob       string
	Modalities []string // audio, video, videoBasedScreenSharing: what the blob has sockets for
}

// CallsConfig is what Calls needs.
type CallsConfig struct {
	BaseURL    string // such as https://graph.microsoft.com/v1.0
	Credential azcore.TokenCredential
	// Private allows loopback and private addresses, as in Config.
	Private bool
}

// Calls operates on calls in which the recorder takes part. It keeps apart from Client:
// its operations take nothing from the request budget of exports, since an answer that
// waits for one comes too late, and it has connections of its own.
//
// Each operation is tried again where that is safe and can help, until ctx ends; a
// context without a deadline gets 30 s. A call id becomes one path segment of the
// configured base URL and nothing else: addresses that notifications carry are not
// followed. It is safe for use by many goroutines.
type Calls struct {
	base  *url.URL
	scope string
	cred  azcore.TokenCredential
	http  *http.Client
}

// NewCalls returns a client and reports every fault of its configuration at once.
func NewCalls(c CallsConfig) (*Calls, error) {
	var faults []error
	base, err := url.Parse(c.BaseURL)
	if err != nil || base.Scheme != "https" || base.Host == "" || base.RawQuery != "" || base.User != nil {
		faults = append(faults, errors.New("graph base URL: want https://HOST/VERSION"))
	}
	if c.Credential == nil {
		faults = append(faults, errors.New("graph calls: a credential is required"))
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	base.Path = strings.TrimSuffix(base.Path, "/")
	return &Calls{base: base, scope: "https://graph.microsoft.com/.default", cred: c.Credential, http: &http.Client{
		Transport:     Transport(c.Private),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Warm gets a token, so that the first answer does not wait for one. It may be called
// as often as one likes: the credential caches.
func (c *Calls) Warm(ctx context.Context) error {
	_, err := c.token(ctx)
	return err
}

// Answer accepts an invite. A nil error is Graph's 202, which says only that the answer
// is being worked on: whether the call is established comes by notification. The caller
// bounds ctx by the 5 s that Graph gives a recorder; within them a failed attempt is
// repeated. ErrDoubt is wrapped if one of several attempts may have been taken although
// its answer was lost: then only a notification can tell.
// https://learn.microsoft.com/graph/api/call-answer
func (c *Calls) Answer(ctx context.Context, call teams.CallID, a Answer) error {
	if len(a.Blob) == 0 || len(a.Blob) > maxCallBlob || len(a.Modalities) == 0 || !strings.HasPrefix(a.CallbackURI, "https://") {
		return errors.New("answer call: want an https callback, a media blob of at most 256 KiB and a modality")
	}
	type options struct {
		Type           string `json:"@odata.type"`
		ContentSharing bool   `json:"isContentSharingNotificationEnabled"`
	}
	type media struct {
		Type string `json:"@odata.type"`
		Blob string `json:"blob"`
	}
	body := struct {
		CallbackURI string   `json:"callbackUri"`
		Modalities  []string `json:"acceptedModalities"`
		Media       media    `json:"mediaConfig"`
		Options     options  `json:"callOptions"`
	}{a.CallbackURI, a.Modalities, media{"#microsoft.graph.appHostedMediaConfig", a.Blob},
		options{"#microsoft.graph.incomingCallOptions", true}}
	_, err := c.do(ctx, operation{"answer call", http.MethodPost, []string{string(call), "answer"}, body, http.StatusAccepted, repeatable})
	return err
}

// Reject declines an invite; reason is none, busy or forbidden.
// https://learn.microsoft.com/graph/api/call-reject
func (c *Calls) Reject(ctx context.Context, call teams.CallID, reason string) error {
	body := map[string]string{"reason": reason}
	_, err := c.do(ctx, operation{"reject call", http.MethodPost, []string{string(call), "reject"}, body, http.StatusAccepted, onlyUntaken})
	return err
}

// UpdateRecordingStatus tells the participants about recording. Only Graph's 200 to
// StatusRecording yields a grant that covers anything. Repeating a status changes
// nothing, so any attempt that failed in between is repeated.
// https://learn.microsoft.com/graph/api/call-updaterecordingstatus
func (c *Calls) UpdateRecordingStatus(ctx context.Context, call teams.CallID, status RecordingStatus) (RecordingGranted, error) {
	body := map[string]string{"clientContext": newRequestID(), "status": string(status)}
	b, err := c.do(ctx, operation{"update recording status", http.MethodPost, []string{string(call), "updateRecordingStatus"}, body, http.StatusOK, repeatable})
	if err != nil || status != StatusRecording {
		return RecordingGranted{}, err
	}
	// The reply is an operation. Its id is kept as evidence where there is one; a body
	// that reports failure under a 200 grants nothing.
	var op struct {
		ID     string `json:"id"`
		Status string `json:"status"`
	}
	if len(bytes.TrimSpace(b)) > 0 {
		if err := json.Unmarshal(b, &op); err != nil {
			return RecordingGranted{}, errors.New("update recording status: answer is not an operation")
		}
	}
	if strings.EqualFold(op.Status, "failed") {
		return RecordingGranted{}, errors.New("update recording status: the operation failed")
	}
	return RecordingGranted{call: call, operation: cleanID(op.ID), at: time.Now().UTC()}, nil
}

// KeepAlive tells Graph that the recorder is still there: at least once in 45 minutes,
// else the call ends. CallGone tells whether it has.
// https://learn.microsoft.com/graph/api/call-keepalive
func (c *Calls) KeepAlive(ctx context.Context, call teams.CallID) error {
	_, err := c.do(ctx, operation{"keep call alive", http.MethodPost, []string{string(call), "keepAlive"}, nil, http.StatusOK, repeatable})
	return err
}

// HangUp takes the recorder, and nobody else, out of the call. A call that is gone is
// a success.
// https://learn.microsoft.com/graph/api/call-delete
func (c *Calls) HangUp(ctx context.Context, call teams.CallID) error {
	_, err := c.do(ctx, operation{"hang up", http.MethodDelete, []string{string(call)}, nil, http.StatusNoContent, repeatable})
	if CallGone(err) {
		return nil
	}
	return err
}

// GetCall returns the call as Graph sends it.
// https://learn.microsoft.com/graph/api/call-get
func (c *Calls) GetCall(ctx context.Context, call teams.CallID) ([]byte, error) {
	return c.do(ctx, operation{"get call", http.MethodGet, []string{string(call)}, nil, http.StatusOK, repeatable})
}

// Participants returns the roster of a call as Graph sends it, {"value": […]}. It can
// hold nobody but the recorder while a call is being established.
// https://learn.microsoft.com/graph/api/call-list-participants
func (c *Calls) Participants(ctx context.Context, call teams.CallID) ([]byte, error) {
	return c.do(ctx, operation{"list participants", http.MethodGet, []string{string(call), "participants"}, nil, http.StatusOK, repeatable})
}

// ErrDoubt is wrapped when it is not known whether Graph took a request that counts once.
var ErrDoubt = errors.New("graph's answer was lost")

// operation is one request on a call.
type operation struct {
	name, method string
	path         []string // below /communications/calls
	body         any
	want         int
	again        func(status int) bool // status 0: no answer; -1: no connection
}

// repeatable operations may reach Graph twice.
func repeatable(status int) bool {
	return status <= 0 || status == http.StatusTooManyRequests || status >= 500
}

// onlyUntaken repeats what Graph cannot have acted upon: a lost answer is ambiguous.
func onlyUntaken(status int) bool {
	return status == -1 || status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable
}

func (c *Calls) do(ctx context.Context, op operation) ([]byte, error) {
	if _, err := teams.ParseCallID(op.path[0]); err != nil {
		return nil, fmt.Errorf("%s: %w", op.name, err) // it becomes part of a path
	}
	if _, limited := ctx.Deadline(); !limited {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callTime)
		defer cancel()
	}
	var body []byte
	if op.body != nil {
		var err error
		if body, err = json.Marshal(op.body); err != nil {
			return nil, fmt.Errorf("%s: %w", op.name, err)
		}
	}
	u := c.base.JoinPath("communications", "calls", url.PathEscape(op.path[0])).JoinPath(op.path[1:]...)
	wait, refused, doubt := callRetryWait, 0, false
	failed := func(err error) error {
		if doubt && op.want == http.StatusAccepted {
			return fmt.Errorf("%s: %w: %s", op.name, ErrDoubt, err.Error()) // the status of the last attempt says nothing about the one before
		}
		return fmt.Errorf("%s: %w", op.name, err)
	}
	for {
		answer, err := c.try(ctx, op, u, body)
		if err == nil {
			return answer, nil
		}
		var e *Error
		status := 0
		var unreached *unreachedError
		switch {
		case errors.As(err, &e):
			status = e.Status
		case errors.As(err, &unreached):
			status = -1
		}
		doubt = doubt || status == 0 || status >= 500 && status != http.StatusServiceUnavailable
		// A token may have expired on the way: the credential is asked again.
		if status == http.StatusUnauthorized && refused < maxRefused {
			refused++
			continue
		}
		pause := max(wait, retryAfter(err))
		if deadline, _ := ctx.Deadline(); !op.again(status) || time.Until(deadline) <= pause {
			return nil, failed(err)
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, failed(err)
		}
		wait = min(2*wait, callRetryLongest)
	}
}

// maxRefused is how often a refused token is exchanged for one operation.
const maxRefused = 2

// unreachedError says that no connection was made, so that nothing was asked.
type unreachedError struct{ error }

func (e *unreachedError) Unwrap() error { return e.error }

// throttledError carries how long Graph asks to wait.
type throttledError struct {
	error
	wait time.Duration
}

func (e *throttledError) Unwrap() error { return e.error }

func retryAfter(err error) time.Duration {
	var t *throttledError
	if errors.As(err, &t) {
		return t.wait
	}
	return 0
}

func (c *Calls) token(ctx context.Context) (string, error) {
	token, err := c.cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{c.scope}})
	if err != nil {
		return "", fmt.Errorf("get token for graph: %w", err)
	}
	return token.Token, nil
}

func (c *Calls) try(ctx context.Context, op operation, u *url.URL, body []byte) (answer []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, callAttempt)
	defer cancel()
	token, err := c.token(ctx)
	if err != nil {
		return nil, &unreachedError{err}
	}
	req, err := http.NewRequestWithContext(ctx, op.method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("client-request-id", newRequestID())
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, classify(redact(err))
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.StatusCode != op.want {
		e := readError(resp, cleanID(resp.Header.Get("request-id")))
		// Documentation shows Retry-After with a fraction, which RFC 9110 does not know.
		if s, perr := strconv.ParseFloat(resp.Header.Get("Retry-After"), 64); perr == nil && s > 0 && s <= maxPause {
			return nil, &throttledError{e, time.Duration(s * float64(time.Second))}
		}
		return nil, e
	}
	answer, err = io.ReadAll(io.LimitReader(resp.Body, callAnswerBytes+1))
	if err != nil {
		return nil, fmt.Errorf("answer broke off after %d bytes: %w", len(answer), err)
	}
	if len(answer) > callAnswerBytes {
		return nil, fmt.Errorf("answer of more than %d bytes", callAnswerBytes)
	}
	return answer, nil
}

// classify tells failures before a connection stood from those after.
func classify(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return &unreachedError{err}
	}
	return err
}

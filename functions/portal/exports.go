package portal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/policy"
	"steno/shared/teams"
)

// exportQueue has orders built.
type exportQueue interface {
	Send(ctx context.Context, id string, body []byte, notBefore time.Time) error
}

// packageStore is where finished packages lie.
type packageStore interface {
	OpenParts(ctx context.Context, tenant teams.TenantID, unit string, size int64, receipt custody.Receipt) (*evidence.Parts, error)
}

// exportAnswer is an order as its people see it.
type exportAnswer struct {
	ID            string             `json:"id"`
	Requester     teams.PersonID     `json:"requester"`
	Case          string             `json:"case"`
	Reason        string             `json:"reason"`
	Conversations int                `json:"conversations"`
	Encrypted     bool               `json:"encrypted"`
	State         policy.ExportState `json:"state"`
	MadeAt        time.Time          `json:"madeAt"`
	Request       string             `json:"request,omitempty"`
	Size          int64              `json:"size,omitempty"`
	SHA256        string             `json:"sha256,omitempty"`
	Expires       *time.Time         `json:"expires,omitempty"`
	Failure       string             `json:"failure,omitempty"`
}

func exportOf(o policy.ExportOrder, now time.Time) exportAnswer {
	a := exportAnswer{
		ID: o.ID, Requester: o.Requester, Case: o.Case, Reason: o.Reason, Conversations: len(o.Conversations), Encrypted: o.Recipient != "",
		State: o.State, MadeAt: o.MadeAt, Request: o.Request, Size: o.Size, SHA256: o.SHA256, Failure: o.Failure,
	}
	if !o.Expires.IsZero() {
		a.Expires = &o.Expires
		if !now.Before(o.Expires) {
			a.State = policy.ExportExpired
		}
	}
	return a
}

// exports lists orders, the newest first: her own for a compliance officer, all for an auditor.
func (p *Portal) exports(w http.ResponseWriter, r *http.Request, c caller) error {
	if err := checkNames(r.URL.Query()); err != nil {
		return err
	}
	if err := p.only(r, c, "exports", policy.ComplianceOfficer, policy.Auditor); err != nil {
		return err
	}
	all, err := p.stores.Exports.List(r.Context())
	if err != nil {
		return err
	}
	out, known := []exportAnswer{}, []teams.PersonID(nil)
	for _, o := range all {
		if o.Requester == c.person || c.grant.Has(policy.Auditor) {
			out, known = append(out, exportOf(o, p.config.Now())), append(known, o.Requester)
		}
	}
	slices.SortFunc(out, func(a, b exportAnswer) int { return cmp.Or(b.MadeAt.Compare(a.MadeAt), cmp.Compare(a.ID, b.ID)) })
	people, err := p.called(r.Context(), known...)
	if err != nil {
		return err
	}
	if err := p.note(r.Context(), c, custody.List, "exports", fmt.Sprintf("%d exports", len(out))); err != nil {
		return err
	}
	return p.reply(w, map[string]any{"exports": out, "people": people})
}

type orderRequest struct {
	Case          string   `json:"case"`
	Reason        string   `json:"reason"`
	Conversations []string `json:"conversations"`
	Checkpoints   []int64  `json:"checkpoints"`
	Recipient     string   `json:"recipient"`
}

// order orders an export. Up to policy.MaxExportAlone conversations it is built at once;
// of more a second person must agree first.
func (p *Portal) order(w http.ResponseWriter, r *http.Request, c caller) error {
	if err := p.only(r, c, "exports", policy.ComplianceOfficer); err != nil {
		return err
	}
	var body orderRequest
	if err := readBody(r, &body); err != nil {
		return err
	}
	now := p.config.Now()
	o, err := policy.Order(c.grant, policy.ExportOrder{
		Case: body.Case, Reason: body.Reason, Conversations: body.Conversations, Checkpoints: body.Checkpoints, Recipient: body.Recipient,
	}, now)
	if err != nil {
		return refused(err)
	}
	var request policy.Proposal
	if o.State == policy.ExportRequested {
		ids := append(slices.Clone(o.Conversations), o.ID)
		if request, err = policy.Propose(c.grant, policy.ActionExport, ids, nil, o.Reason, now, policy.MaxRequestLife); err != nil {
			return refused(err)
		}
		o.Request = request.Digest
	}
	if err := p.note(r.Context(), c, custody.Requested, "export-"+o.ID, fmt.Sprintf("%d conversations set=%s", len(o.Conversations), policy.ObjectSet(o.Conversations...))); err != nil {
		return err
	}
	if err := p.stores.Exports.Insert(r.Context(), o); err != nil {
		return refused(err)
	}
	if o.State == policy.ExportRequested {
		if err := p.stores.Requests.Insert(r.Context(), request); err != nil {
			return refused(err)
		}
	} else if err := p.sendExport(r.Context(), o); err != nil {
		return err
	}
	return p.reply(w, exportOf(o, now))
}

func (p *Portal) sendExport(ctx context.Context, o policy.ExportOrder) error {
	id, body, err := policy.ExportMessage(p.config.Tenant, o)
	if err != nil {
		return err
	}
	return p.stores.Queue.Send(ctx, id, body, time.Time{})
}

// agreedExport has an order built that a second person agreed to. Who calls it again
// finishes what was left half done.
func (p *Portal) agreedExport(ctx context.Context, request policy.Proposal) error {
	all, err := p.stores.Exports.List(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(o policy.ExportOrder) bool { return o.Request == request.Digest })
	if i < 0 {
		return errNotFound
	}
	o := all[i]
	if o.State == policy.ExportRequested {
		o.State, o.Approver = policy.ExportApproved, request.Approver
		if err := p.stores.Exports.Replace(ctx, o); err != nil {
			return refused(err)
		}
	}
	if o.State != policy.ExportApproved {
		return nil // it is being built, or was
	}
	return p.sendExport(ctx, o)
}

// exportPackage hands a finished package to who ordered it, in ranges of at most
// maxRangeReply: a package may have gigabytes, and no answer lasts that long. What is
// fetched within one receipt is one event, before the first byte.
func (p *Portal) exportPackage(w http.ResponseWriter, r *http.Request, c caller) error {
	id := r.PathValue("export")
	if !matterForm.MatchString(id) {
		return errNotFound
	}
	if err := p.only(r, c, "export-"+id, policy.ComplianceOfficer); err != nil {
		return err
	}
	o, err := p.stores.Exports.Get(r.Context(), id)
	if err != nil && !errors.Is(err, policy.ErrNotFound) {
		return err
	}
	if err != nil || o.MayFetch(c.grant, p.config.Now()) != nil {
		if nerr := p.note(r.Context(), c, custody.Denied, "export-"+id, "fetch"); nerr != nil {
			return nerr
		}
		return errNotFound
	}
	from, n, partial, err := parseRange(r.Header.Values("Range"), o.Size)
	if err != nil {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", o.Size))
		return &problem{Status: http.StatusRequestedRangeNotSatisfiable, Title: "Range not satisfiable", Detail: fmt.Sprintf("One range of at most %d bytes within the package.", maxRangeReply)}
	}
	receipt, err := p.remembered(r.Context(), c, custody.Exported, o.Unit, "fetch export-"+id)
	if err != nil {
		return err
	}
	parts, err := p.stores.Packages.OpenParts(r.Context(), p.config.Tenant, o.Unit, o.Size, receipt)
	if err != nil {
		return err
	}
	b := make([]byte, n)
	if _, err := parts.ReadAt(b, from); err != nil {
		return err
	}
	name := "steno-export-" + id + ".zip"
	if o.Recipient != "" {
		name += ".age"
	}
	h := w.Header()
	h.Set("Accept-Ranges", "bytes")
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Cache-Control", "no-store, private")
	h.Set("Content-Disposition", `attachment; filename="`+name+`"`)
	h.Set("Content-Length", strconv.FormatInt(n, 10))
	h.Set("ETag", `"`+o.SHA256+`"`)
	if partial {
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, from+n-1, o.Size))
		w.WriteHeader(http.StatusPartialContent)
	}
	_, _ = w.Write(b) // the caller is gone if this fails
	return nil
}

package retention

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"steno/shared/custody"
	"steno/shared/policy"
	"steno/shared/teams"
)

// maxCertified is how many dispositions one certificate lists: it must fit one row of a
// table, with the ids of some keys for each.
const maxCertified = 100

// certificate is what a certificate of disposition says.
type certificate struct {
	Format     string              `json:"format"` // steno-certificate/1
	ID         string              `json:"id"`
	Tenant     teams.TenantID      `json:"tenant"`
	Day        string              `json:"day"` // UTC
	Count      int                 `json:"count"`
	ByPolicy   map[string]int      `json:"byPolicy"`
	ByModality map[string]int      `json:"byModality"`
	Disposed   []certifiedDisposal `json:"disposed"`
}

type certifiedDisposal struct {
	Conversation string    `json:"conversation"`
	Units        []string  `json:"units,omitempty"` // where they are others than the conversation
	Modality     string    `json:"modality"`
	Ground       string    `json:"ground"`
	Policy       string    `json:"policy"`
	Until        time.Time `json:"until"`
	DoneAt       time.Time `json:"doneAt"`
	Event        string    `json:"event"`
	Request      string    `json:"request,omitempty"`
	Objects      int       `json:"objects"`
	Keys         int       `json:"keys"` // the custody event of completion names them
}

// certify issues the certificates of days that are over, and takes what they list off the
// list. The certificate is durable and on record first.
func (p *pass) certify(ctx context.Context) error {
	list, err := p.s.Dispositions.List(ctx)
	if err != nil {
		return fmt.Errorf("read dispositions: %w", err)
	}
	days := map[string][]policy.Disposition{}
	for _, d := range list {
		if d.State == policy.DispositionDone && !sameDay(d.DoneAt, p.now) {
			err := p.authentic(ctx, d)
			if errors.Is(err, errUnbacked) {
				continue // the alarm was raised when it was not carried on
			}
			if err != nil {
				return err
			}
			day := d.DoneAt.UTC().Format("20060102")
			days[day] = append(days[day], d)
		}
	}
	for day, done := range days {
		at, err := time.Parse("20060102", day)
		if err != nil {
			return err
		}
		before, err := p.s.Dispositions.Certificates(ctx, at, at.AddDate(0, 0, 1))
		if err != nil {
			return fmt.Errorf("read certificates: %w", err)
		}
		if done, err = p.uncertified(ctx, before, done); err != nil {
			return err
		}
		for i, part := range slices.Collect(slices.Chunk(done, maxCertified)) {
			if err := p.issue(ctx, day, len(before)+i, part); err != nil {
				return fmt.Errorf("certificate of %s: %w", day, err)
			}
		}
	}
	return nil
}

// uncertified takes off the list what a run that died in between had certified, with its
// event, and returns the rest.
func (p *pass) uncertified(ctx context.Context, before []policy.Certificate, done []policy.Disposition) ([]policy.Disposition, error) {
	listed := map[string]string{} // event to certificate
	for _, c := range before {
		var was certificate
		if err := json.Unmarshal(c.Text, &was); err != nil {
			return nil, fmt.Errorf("certificate %s: %w", c.ID, err)
		}
		for _, x := range was.Disposed {
			listed[x.Event] = c.ID
		}
	}
	var rest []policy.Disposition
	again := map[string][]policy.Disposition{}
	for _, d := range done {
		if id, ok := listed[d.Event]; ok {
			again[id] = append(again[id], d)
			continue
		}
		rest = append(rest, d)
	}
	for _, c := range before {
		if len(again[c.ID]) == 0 {
			continue
		}
		if err := p.announce(ctx, c, again[c.ID]); err != nil {
			return nil, err
		}
	}
	return rest, nil
}

// issue stores one certificate.
func (p *pass) issue(ctx context.Context, day string, n int, part []policy.Disposition) error {
	c := certificate{
		Format: "steno-certificate/1", ID: fmt.Sprintf("%s-%04d", day, n), Tenant: p.c.Tenant, Day: day, Count: len(part),
		ByPolicy: map[string]int{}, ByModality: map[string]int{},
	}
	for _, d := range part {
		c.ByPolicy[d.Policy]++
		c.ByModality[d.Modality]++
		x := certifiedDisposal{
			Conversation: d.Conversation, Modality: d.Modality, Ground: d.Ground, Policy: d.Policy, Until: d.Until, DoneAt: d.DoneAt,
			Event: d.Event, Request: d.Request, Objects: d.Objects, Keys: len(d.Keys),
		}
		if len(d.Units) != 1 || d.Units[0] != d.Conversation {
			x.Units = d.Units
		}
		c.Disposed = append(c.Disposed, x)
	}
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	stored := policy.Certificate{ID: c.ID, Text: text}
	if err := p.s.Dispositions.Certify(ctx, stored); err != nil && !errors.Is(err, policy.ErrExists) {
		return err
	}
	return p.announce(ctx, stored, part)
}

// announce puts a stored certificate on record and takes what it lists off the list.
func (p *pass) announce(ctx context.Context, c policy.Certificate, listed []policy.Disposition) error {
	e := custody.Event{Action: custody.Certified, Item: "certificate-" + c.ID, Detail: fmt.Sprintf("conversations=%d sha256=%s", len(listed), hexDigest(c.Text))}
	if _, err := p.record(ctx, e); err != nil {
		return err
	}
	for _, d := range listed {
		if err := p.s.Dispositions.Delete(ctx, d.Conversation); err != nil {
			return err
		}
	}
	return nil
}

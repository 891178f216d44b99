package directory

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/microsoftgraph/msgraph-sdk-go/models"

	"steno/shared/notification"
)

// changes are the changes of a message that are asked for.
const changes = "created,updated,deleted"

// Subscribe creates a subscription and returns its id and when it expires. Before Graph
// answers, it asks both addresses whether they want it. A request that is repeated after a
// lost answer is notification.ErrTaken.
// https://learn.microsoft.com/graph/api/subscription-post-subscriptions
func (d *Directory) Subscribe(ctx context.Context, r notification.Request) (id string, expires time.Time, err error) {
	s := models.NewSubscription()
	kinds, path, certificate, with := changes, r.Resource.Path(), base64.StdEncoding.EncodeToString(r.Certificate.DER), true
	s.SetChangeType(&kinds)
	s.SetResource(&path)
	s.SetNotificationUrl(&r.URL)
	s.SetLifecycleNotificationUrl(&r.LifecycleURL)
	s.SetClientState(&r.State)
	s.SetIncludeResourceData(&with)
	s.SetEncryptionCertificate(&certificate)
	s.SetEncryptionCertificateId(&r.Certificate.ID)
	s.SetExpirationDateTime(&r.Expires)
	got, err := d.subscriptions.Post(ctx, s, nil)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("create subscription: %w", subscribing(err))
	}
	if value(got.GetId()) == "" {
		return "", time.Time{}, errors.New("create subscription: the answer names no id")
	}
	return *got.GetId(), expiry(got, r.Expires), nil
}

// Renew moves a subscription's expiry on and lets Graph encrypt under this certificate from
// now on. It reauthorizes too. notification.ErrGone if the subscription is no more.
// https://learn.microsoft.com/graph/api/subscription-update
func (d *Directory) Renew(ctx context.Context, id string, until time.Time, c notification.Certificate) (time.Time, error) {
	s := models.NewSubscription()
	certificate := base64.StdEncoding.EncodeToString(c.DER)
	s.SetExpirationDateTime(&until)
	s.SetEncryptionCertificate(&certificate)
	s.SetEncryptionCertificateId(&c.ID)
	got, err := d.subscriptions.BySubscriptionId(id).Patch(ctx, s, nil)
	if err != nil {
		return time.Time{}, fmt.Errorf("renew subscription %s: %w", id, subscribing(err))
	}
	return expiry(got, until), nil
}

// Unsubscribe ends a subscription. One that is gone already is no error.
// https://learn.microsoft.com/graph/api/subscription-delete
func (d *Directory) Unsubscribe(ctx context.Context, id string) error {
	err := subscribing(d.subscriptions.BySubscriptionId(id).Delete(ctx, nil))
	if err != nil && !errors.Is(err, notification.ErrGone) {
		return fmt.Errorf("delete subscription %s: %w", id, err)
	}
	return nil
}

// subscriptionPages bounds a listing; Graph allows an organization 10,000 subscriptions.
const subscriptionPages = 200

// Subscriptions lists those of this application, whoever made them.
// https://learn.microsoft.com/graph/api/subscription-list
func (d *Directory) Subscriptions(ctx context.Context) ([]notification.Standing, error) {
	var out []notification.Standing
	page, err := d.subscriptions.Get(ctx, nil)
	links := map[string]bool{}
	for range subscriptionPages {
		if err != nil {
			return nil, fmt.Errorf("list subscriptions: %w", plain(err))
		}
		for _, s := range page.GetValue() {
			out = append(out, notification.Standing{ID: value(s.GetId()), Path: value(s.GetResource()), URL: value(s.GetNotificationUrl())})
		}
		next := value(page.GetOdataNextLink())
		if next == "" {
			return out, nil
		}
		if links[next] || !d.ours(next) {
			break
		}
		links[next] = true
		page, err = d.subscriptions.WithUrl(next).Get(ctx, nil)
	}
	return nil, errors.New("list subscriptions: the listing has no end")
}

func expiry(s models.Subscriptionable, asked time.Time) time.Time {
	if s == nil || s.GetExpirationDateTime() == nil {
		return asked
	}
	return s.GetExpirationDateTime().UTC()
}

// subscribing turns Graph's answers into the errors of package notification.
func subscribing(err error) error {
	if err == nil {
		return nil
	}
	err = plain(err)
	var e *Error
	if errors.As(err, &e) {
		switch e.Status {
		case http.StatusNotFound:
			return fmt.Errorf("%w: %w", notification.ErrGone, err)
		case http.StatusConflict:
			return fmt.Errorf("%w: %w", notification.ErrTaken, err)
		}
	}
	return err
}

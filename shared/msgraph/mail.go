package msgraph

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/hashicorp/go-retryablehttp"

	"steno/shared/teams"
)

// SendMail sends plain text from a mailbox of the tenant. It needs Mail.Send, which should be
// narrowed to that one mailbox. A nil error is Graph's 202: the mail is accepted, not
// delivered. A mail whose answer was lost may be sent twice.
// https://learn.microsoft.com/graph/api/user-sendmail
func (g *Client) SendMail(ctx context.Context, from teams.PersonID, to []string, subject, text string) (err error) {
	if _, err := teams.ParsePersonID(string(from)); err != nil {
		return fmt.Errorf("send mail: %w", err) // it becomes part of a path
	}
	type address struct {
		Address string `json:"address"`
	}
	type recipient struct {
		EmailAddress address `json:"emailAddress"`
	}
	type content struct {
		ContentType string `json:"contentType"`
		Content     string `json:"content"`
	}
	type message struct {
		Subject      string      `json:"subject"`
		Body         content     `json:"body"`
		ToRecipients []recipient `json:"toRecipients"`
	}
	m := message{Subject: subject, Body: content{"Text", text}}
	for _, a := range to {
		m.ToRecipients = append(m.ToRecipients, recipient{address{a}})
	}
	body, err := json.Marshal(map[string]any{"message": m, "saveToSentItems": false})
	if err != nil {
		return fmt.Errorf("send mail: %w", err)
	}
	token, err := g.c.Credential.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{g.scope}})
	if err != nil {
		return fmt.Errorf("send mail: get token for graph: %w", err)
	}
	u := g.base.JoinPath("users", url.PathEscape(string(from)), "sendMail")
	req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("send mail: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+token.Token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := g.http.Do(req)
	if err != nil {
		return fmt.Errorf("send mail: %w", redact(err))
	}
	if resp.StatusCode != http.StatusAccepted {
		err = readError(resp, cleanID(resp.Header.Get("request-id")))
	} else {
		_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	}
	if cerr := resp.Body.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("send mail: %w", err)
	}
	return nil
}

package msgraph

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"

	"steno/shared/teams"
)

// User reads one person's name and address from the directory.
// https://learn.microsoft.com/graph/api/user-get
func (g *Client) User(ctx context.Context, id teams.PersonID) (teams.User, error) {
	if _, err := teams.ParsePersonID(string(id)); err != nil {
		return teams.User{}, fmt.Errorf("read user: %w", err)
	}
	u := g.base.JoinPath("users", url.PathEscape(string(id)))
	u.RawQuery = url.Values{"$select": {"id,displayName,userPrincipalName"}}.Encode()
	var v struct{ DisplayName, UserPrincipalName string }
	if err := g.read(ctx, u, &v); err != nil {
		return teams.User{}, fmt.Errorf("read user: %w", err)
	}
	return teams.User{ID: id, DisplayName: v.DisplayName, Address: v.UserPrincipalName}, nil
}

// ChatTopic reads the topic of a chat. That of a meeting's chat is the meeting's
// subject. It is empty for chats that have none.
// https://learn.microsoft.com/graph/api/chat-get
func (g *Client) ChatTopic(ctx context.Context, thread teams.ThreadID) (string, error) {
	if _, err := teams.ParseThreadID(string(thread)); err != nil {
		return "", fmt.Errorf("read chat: %w", err)
	}
	u := g.base.JoinPath("chats", url.PathEscape(string(thread)))
	var v struct{ Topic string }
	if err := g.read(ctx, u, &v); err != nil {
		return "", fmt.Errorf("read chat: %w", err)
	}
	return v.Topic, nil
}

func (g *Client) read(ctx context.Context, u *url.URL, into any) error {
	body, id, err := g.get(ctx, u)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("answer is not JSON (request-id %s): %w", id, err)
	}
	return nil
}

package notification

import (
	"errors"
	"regexp"
	"strings"

	"steno/shared/rawjson"
)

// ErrOther says that decrypted content is not the message that its notification names.
var ErrOther = errors.New("the content is not the message that the notification names")

// target is the message that a resource names.
type target struct{ team, thread, message string }

// targetForms are how Graph writes the resource of a chat message. A reply in a channel has
// its root before it.
// https://learn.microsoft.com/graph/teams-changenotifications-chatmessage
var targetForms = []*regexp.Regexp{
	regexp.MustCompile(`^(?:users\('[^'/]+'\)/)?chats\('(?P<thread>[^'/]+)'\)/messages\('(?P<message>[^'/]+)'\)$`),
	regexp.MustCompile(`^teams\('(?P<team>[^'/]+)'\)/channels\('(?P<thread>[^'/]+)'\)/messages\('(?P<message>[^'/]+)'\)$`),
	regexp.MustCompile(`^teams\('(?P<team>[^'/]+)'\)/channels\('(?P<thread>[^'/]+)'\)/messages\('[^'/]+'\)/replies\('(?P<message>[^'/]+)'\)$`),
}

func readTarget(resource string) (t target, ok bool) {
	for _, form := range targetForms {
		m := form.FindStringSubmatch(strings.TrimPrefix(resource, "/"))
		if m == nil {
			continue
		}
		for i, name := range form.SubexpNames() {
			switch name {
			case "team":
				t.team = m[i]
			case "thread":
				t.thread = m[i]
			case "message":
				t.message = m[i]
			}
		}
		return t, true
	}
	return t, false
}

// readPlain reads who a message says that it is.
func readPlain(plain []byte) (t target, etag string, err error) {
	var chat string
	if err := (fields{"id": &t.message, "etag": &etag, "chatId": &chat}).read(plain); err != nil {
		return t, "", err
	}
	seen := false
	err = rawjson.Members(plain, func(name string, value []byte) error {
		if name != "channelIdentity" || rawjson.IsNull(value) {
			return nil
		}
		if seen {
			return rawjson.ErrMalformed
		}
		seen = true
		return fields{"teamId": &t.team, "channelId": &t.thread}.read(value)
	})
	if chat != "" {
		t.thread = chat
	}
	return t, etag, err
}

// speaksOf compares a decrypted message with the resource, the id and the etag of its item.
func (i Item) speaksOf(plain []byte) error {
	named, ok := readTarget(i.Resource)
	if !ok {
		return ErrOther
	}
	got, etag, err := readPlain(plain)
	if err != nil || got.message != named.message || got.thread != named.thread || !strings.EqualFold(got.team, named.team) ||
		i.ID != "" && i.ID != got.message || i.ETag != "" && strings.Trim(i.ETag, `W/"`) != etag {
		return ErrOther
	}
	return nil
}

// Team is the id of the team whose channel the item's message stands in, empty for chats.
func (i Item) Team() string {
	t, _ := readTarget(i.Resource) // one that names no message names no team either
	return t.team
}

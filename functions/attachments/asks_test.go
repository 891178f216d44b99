package attachments_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"steno/functions/internal/intake"
	"steno/shared/conversation"
)

// pointing is a message that points at a file, at an image and at itself.
func pointing(id string) []byte {
	return fmt.Appendf(nil, `{"id":%q,"etag":"1","chatId":%q,"createdDateTime":%q,"body":{"contentType":"html","content":"<img src=\"%s\">"},"attachments":[`+
		`{"id":"a","contentType":"reference","contentUrl":%q},{"id":"b","contentType":"messageReference","content":"{}"}]}`, id, thread, sent.Format(time.RFC3339), image, link)
}

func TestATenantHasFetchedWhatItsModeSays(t *testing.T) {
	for mode, want := range map[intake.FileMode][]conversation.AttachmentKind{
		intake.FilesOff: nil, "": nil, intake.FilesHosted: {conversation.KindImage}, intake.FilesAll: {conversation.KindFile, conversation.KindImage},
	} {
		r := newRig(t)
		r.must(r.keep(mode, r.queue, pointing("1")))
		var got []conversation.AttachmentKind
		for _, body := range r.queue.take() {
			ask, err := conversation.DecodeFileAsk(body)
			r.must(err)
			if ask.Custodian != alice || ask.Message != "1" || ask.Conversation() != r.id() || ask.External {
				t.Errorf("mode %q: %+v", mode, ask)
			}
			got = append(got, ask.Kind)
		}
		if !slices.Equal(got, want) {
			t.Errorf("mode %q asks for %q, want %q", mode, got, want)
		}
	}
}

// away is a queue that takes nothing.
type away struct{ err error }

func (a away) Send(context.Context, string, []byte, time.Time) error { return a.err }

// Until the files are asked for, what brought their message does not count as kept: so a window
// is read again, and nothing is forgotten.
func TestAMessageWhoseFilesCannotBeAskedForIsNotKeptYet(t *testing.T) {
	r := newRig(t)
	gone := errors.New("the queue is away")
	if err := r.keep(intake.FilesAll, away{gone}, pointing("1")); !errors.Is(err, gone) {
		t.Fatalf("%v, want the queue's error", err)
	}
	expected, err := r.catalog.Attachments(t.Context(), r.id())
	r.must(err)
	if len(expected) != 1 || expected[0].State != conversation.AttachmentExpected {
		t.Errorf("a file that nobody was asked for is not known as expected: %+v", expected)
	}
	r.must(r.keep(intake.FilesAll, r.queue, pointing("1")))
	if n := len(r.queue.take()); n != 2 {
		t.Errorf("%d files are asked for the second time", n)
	}
}

func TestAFileThatHasAResultIsNotAskedForAgain(t *testing.T) {
	r := newRig(t)
	r.shelve(noise(10))
	r.say("1", "1", "", link)
	r.handle()
	r.only()
	r.say("1", "2", "edited", link)
	if n := len(r.queue.take()); n != 0 {
		t.Errorf("%d files are asked for again", n)
	}
}

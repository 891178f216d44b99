package retention_test

import (
	"fmt"
	"testing"
	"time"

	"steno/shared/conversation"
	"steno/shared/policy"
	"steno/shared/storetest"
)

// attach puts a file of three parts into a conversation of ann's, and a gap beside it.
func (r *rig) attach(id conversation.ID) {
	r.t.Helper()
	s, err := r.catalog.Slice(r.t.Context(), id)
	r.ok(err)
	h := conversation.FileHeader{
		Tenant: r.tenant, Conversation: id, Thread: s.Conversation.Thread, Custodian: ann, Message: "1", Sent: id.Day(), Kind: conversation.KindFile,
		Name: "secret name.pdf", Source: "https://contoso.sharepoint.com/x.pdf", Rule: conversation.RuleCurrent,
	}
	_, _, err = storetest.PutFile(r.t.Context(), r.store, r.catalog, h, 100, make([]byte, 250), r.now())
	r.ok(err)
	r.ok(r.catalog.SaveAttachment(r.t.Context(), conversation.Attachment{ID: "gap", Conversation: id, Name: "another secret.pdf", State: conversation.AttachmentGap, Reason: conversation.GapGone}))
}

// known is how many attachments the register has of a conversation.
func (r *rig) known(id conversation.ID) int {
	r.t.Helper()
	list, err := r.catalog.Attachments(r.t.Context(), id)
	r.ok(err)
	return len(list)
}

func TestFilesEndWithTheirConversation(t *testing.T) {
	r := newRig(t)
	due, young := r.chat(old, "due", time.Time{}, false), r.chat(fresh, "young", time.Time{}, false)
	r.attach(due)
	r.attach(young)
	r.run()
	r.want("due", gone, due)
	r.want("young", kept, young)
	if r.known(due) != 0 || r.known(young) != 2 {
		t.Errorf("the register knows %d of what is gone, %d of what is kept", r.known(due), r.known(young))
	}
	r.agreed(policy.ActionErase, r.now().Add(-8*24*time.Hour), attested, string(young))
	r.run()
	r.want("erased", shredded, young)
	if r.known(young) != 0 {
		t.Error("the names of erased files are still known")
	}
}

func TestFilesAreHeldAndDatedWithTheirConversation(t *testing.T) {
	r := newRig(t)
	id := r.chat(old, "x", time.Time{}, false)
	r.attach(id)
	r.matter(id)
	r.run()
	r.want("held", kept, id)
	list, err := r.blobs.List(t.Context(), string(r.tenant)+"/"+string(id)+"/")
	r.ok(err)
	if len(list) != 4 {
		t.Fatalf("%d objects", len(list))
	}
	for _, o := range list {
		if p, err := r.blobs.Protection(t.Context(), o.Name); err != nil || !p.Held {
			t.Errorf("%s is not held: %v", o.Name, err)
		}
	}
	young := r.chat(fresh, "young", time.Time{}, false)
	r.attach(young)
	r.config.Policies = policy.DataPolicies{{Name: "ten", Keep: policy.Term{Years: 10}, Starts: policy.FromCreation}}
	r.run()
	list, err = r.blobs.List(t.Context(), string(r.tenant)+"/"+string(young)+"/")
	r.ok(err)
	dates := map[string]int{}
	for _, o := range list {
		p, err := r.blobs.Protection(t.Context(), o.Name)
		r.ok(err)
		dates[fmt.Sprint(p.Until.Year())]++
	}
	if want := fmt.Sprint(fresh.Year() + 10); dates[want] != 4 {
		t.Errorf("dates %v, want 4 in %s", dates, want)
	}
}

package notification_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"steno/shared/notification"
)

const tenant = "11111111-1111-4111-8111-111111111111"

func item(more string) string {
	return `{"subscriptionId":"s","clientState":"secret","tenantId":"` + tenant + `","changeType":"created","resource":"chats('c')/messages('1')"` + more + `}`
}

func delivery(items, tokens string) []byte {
	return []byte(`{"value":[` + items + `],"validationTokens":` + tokens + `}`)
}

func TestADeliveryIsTakenApartAndItsContentLeftAsItCame(t *testing.T) {
	content := `{ "data":"eA==","dataSignature":"","dataKey":"","encryptionCertificateId":"c1" }`
	d, err := notification.ReadDelivery(delivery(item(`,"resourceData":{"id":"1","@odata.etag":"W/\"7\""},"encryptedContent":`+content), `["a.b.c"]`))
	if err != nil {
		t.Fatal(err)
	}
	got, err := d.Notices()
	if err != nil || len(got) != 1 || !reflect.DeepEqual(d.Tokens, []string{"a.b.c"}) {
		t.Fatalf("%+v, %v", got, err)
	}
	want := notification.Notice{Item: notification.Item{
		Subscription: "s", Tenant: tenant, Change: "created", Resource: "chats('c')/messages('1')", ID: "1", ETag: `W/"7"`, Content: []byte(content),
	}, State: "secret"}
	if !reflect.DeepEqual(got[0], want) {
		t.Errorf("read %+v, want %+v", got[0], want)
	}
	if id, err := got[0].Certificate(); err != nil || id != "c1" {
		t.Errorf("certificate %q, %v", id, err)
	}
}

func TestWhatIsNoDeliveryIsRefusedWhole(t *testing.T) {
	many := func(n int, one string) string { return strings.TrimSuffix(strings.Repeat(one+",", n), ",") }
	for name, body := range map[string][]byte{
		"nothing":            nil,
		"not JSON":           []byte("hello"),
		"cut off":            delivery(item(""), "[]")[:50],
		"an array":           []byte("[]"),
		"no items":           delivery("", "[]"),
		"no value":           []byte(`{"validationTokens":[]}`),
		"value twice":        []byte(`{"value":[` + item("") + `],"value":[` + item("") + `]}`),
		"value no array":     []byte(`{"value":{}}`),
		"too many items":     delivery(many(notification.MaxItems+1, item("")), "[]"),
		"too many tokens":    delivery(item(""), "["+many(notification.MaxTokens+1, `"a"`)+"]"),
		"a token no text":    delivery(item(""), "[1]"),
		"too large":          delivery(item(`,"x":"`+strings.Repeat("x", notification.MaxDelivery)+`"`), "[]"),
		"more behind":        append(delivery(item(""), "[]"), "{}"...),
		"bad inside an item": delivery(`{"subscriptionId":tru}`, "[]"),
	} {
		if _, err := notification.ReadDelivery(body); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for name, one := range map[string]string{
		"not an object":      `1`,
		"no tenant":          `{"subscriptionId":"s"}`,
		"a tenant no GUID":   strings.Replace(item(""), tenant, "contoso", 1),
		"a state no text":    strings.Replace(item(""), `"secret"`, "1", 1),
		"state twice":        item(`,"clientState":"other"`),
		"content twice":      item(`,"encryptedContent":{},"encryptedContent":{}`),
		"data id no text":    item(`,"resourceData":{"id":1}`),
		"data not an object": item(`,"resourceData":7`),
	} {
		d, err := notification.ReadDelivery(delivery(one, "[]"))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := d.Notices(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestParcelsFitMessagesAndKeepOrderAndContent(t *testing.T) {
	received := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	var items []notification.Item
	for i := range 40 {
		size := 100 * i
		if i == 17 {
			size = 9000 // more than a message
		}
		items = append(items, notification.Item{
			Subscription: "s", Tenant: tenant, Change: "created", Resource: fmt.Sprintf("chats('c')/messages('%d')", i), ID: fmt.Sprint(i), ETag: "e",
			Content: []byte(`"` + strings.Repeat("x", size) + `"`),
		})
	}
	var back []notification.Item
	for _, p := range notification.Pack(received, items, 8000) {
		b, err := notification.EncodeParcel(p)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > 8000 && len(p.Items) > 1 {
			t.Errorf("%d items in a parcel of %d bytes", len(p.Items), len(b))
		}
		again, err := notification.DecodeParcel(b)
		if err != nil || !reflect.DeepEqual(again, p) {
			t.Fatalf("%+v came back as %+v, %v", p, again, err)
		}
		back = append(back, again.Items...)
	}
	if !reflect.DeepEqual(back, items) {
		t.Error("items are not those that were packed")
	}
}

func TestAQueuedParcelHoldsNoSecretOfTheDelivery(t *testing.T) {
	d, err := notification.ReadDelivery(delivery(item(`,"encryptedContent":{}`), `["the.token.itself"]`))
	if err != nil {
		t.Fatal(err)
	}
	notices, err := d.Notices()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range notification.Pack(time.Now(), []notification.Item{notices[0].Item}, 1<<16) {
		b, err := notification.EncodeParcel(p)
		if err != nil || bytes.Contains(b, []byte("secret")) || bytes.Contains(b, []byte("token")) {
			t.Errorf("%s, %v", b, err)
		}
	}
}

func TestForgedParcelsAreRefused(t *testing.T) {
	good, err := notification.EncodeParcel(notification.Parcel{Received: time.Now(), Items: []notification.Item{{Tenant: tenant, Content: []byte("{}")}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]string{
		"nothing":          "",
		"an unknown field": strings.Replace(string(good), "{", `{"force":true,`, 1),
		"another version":  strings.Replace(string(good), `"stenoV":1`, `"stenoV":2`, 1),
		"another tenant":   strings.Replace(string(good), tenant, "contoso", 1),
		"more behind":      string(good) + "{}",
		"no items":         `{"stenoV":1,"noticeReceived":"2026-03-02T09:00:00Z"}`,
		"a path to claim":  `{"stenoV":1,"noticeReceived":"2026-03-02T09:00:00Z","noticeClaim":"../../x"}`,
		"no time":          `{"stenoV":1,"noticeClaim":"00000000000000000000000000000000"}`,
	} {
		if _, err := notification.DecodeParcel([]byte(b)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzReadDelivery(f *testing.F) {
	f.Add(delivery(item(`,"resourceData":{"id":"1"},"encryptedContent":{"data":"eA=="}`), `["a.b.c"]`))
	f.Add([]byte(`{"value":[{"subscriptionId":"<guid>","tenantId":"` + tenant + `","lifecycleEvent":"missed"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		d, err := notification.ReadDelivery(body)
		if err != nil {
			return
		}
		notices, err := d.Notices()
		if err != nil {
			return
		}
		for _, n := range notices {
			if n.Content != nil && !json.Valid(n.Content) {
				t.Errorf("content %q is not JSON", n.Content)
			}
			_, _ = n.Certificate() // must not panic
		}
	})
}

func FuzzDecodeParcel(f *testing.F) {
	good, err := notification.EncodeParcel(notification.Parcel{Received: time.Unix(1, 0), Items: []notification.Item{{Tenant: tenant, Content: []byte("{}")}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := notification.DecodeParcel(b)
		if err != nil {
			return
		}
		if _, err := notification.EncodeParcel(p); err != nil {
			t.Errorf("what was read cannot be written: %v", err)
		}
	})
}

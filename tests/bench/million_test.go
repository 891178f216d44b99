package bench_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"steno/shared/policy"
	"steno/tests/local/azurite"
	"steno/tests/local/worm"
)

// Prices in dollars an operation: US, LRS, hot, without discounts, as read in November 2026.
// https://azure.microsoft.com/pricing/details/storage/blobs and …/storage/tables,
// …/details/service-bus (Basic)
var prices = map[string]float64{
	worm.OpPut: 5.5e-6, worm.OpGet: 0.44e-6, worm.OpHead: 0.44e-6, worm.OpList: 5.5e-6, worm.OpOther: 0.44e-6, worm.OpDelete: 0,
	azurite.OpTablePut: 3.6e-8, azurite.OpTableGet: 3.6e-8, azurite.OpTableQuery: 3.6e-8, azurite.OpTableDelete: 3.6e-8, azurite.OpTableTransaction: 3.6e-8, azurite.OpTableOther: 3.6e-8,
}

// busPrice is that of a window on the queue: sent, received, completed.
const busPrice = 3 * 5e-8

const (
	million   = 1_000_000
	thousand  = 1000
	maxGraph  = 200 // requests a second of an application in a tenant, for exports
	maxMoney  = 10  // dollars a million messages
	sharedBy2 = 2   // conversations a page
)

// TestAMillionMessagesOfAThousandUsers reads a million messages out of the mailboxes of a
// thousand recorded users: fifty a page, two conversations a page, all of them new. It takes
// minutes, on disk.
func TestAMillionMessagesOfAThousandUsers(t *testing.T) {
	w := startWorldOn(t, false)
	a, err := w.Archive()
	if err != nil {
		t.Fatal(err)
	}
	var change policy.Change
	for n := range thousand {
		change.Opened = append(change.Opened, policy.Period{Person: personOf(n), Role: policy.RecordedUser, Desk: "bench", From: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)})
	}
	if err := a.Roster.Apply(t.Context(), change); err != nil {
		t.Fatal(err)
	}
	const windows = million / perPage
	f, ops := measureJob(t, w, sharedBy2, job{Warm: warm, Windows: windows, People: thousand})
	asked, most := w.pages.requests()
	money := windows * busPrice
	kinds := w.Storage.Operations()
	fmt.Printf("\n%d messages of %d recorded users, %d a page\n", million, thousand, perPage)
	fmt.Printf("  %-38s %12s, %d messages a second\n", "time (the machine's other half is storage)", f.Wall.Round(time.Second), int(million/f.Wall.Seconds()))
	fmt.Printf("  %-38s %12s\n", "CPU of the ingesting process", f.CPU.Round(time.Second))
	fmt.Printf("  %-38s %8d→%d MiB\n", "memory", f.FirstRSS/1024, f.LastRSS/1024)
	fmt.Printf("  %-38s %12d, at most %d in a second (Graph allows %d)\n", "requests to Graph", asked, most, maxGraph)
	fmt.Printf("  %-38s %12d, %.3f a message\n", "storage operations", ops, float64(ops)/million)
	names := make([]string, 0, len(kinds))
	for k, n := range kinds {
		price, known := prices[k]
		if !known {
			t.Errorf("operations of a kind without a price: %s", k)
		}
		money += float64(n) * price
		names = append(names, k)
	}
	slices.Sort(names)
	for _, k := range names {
		fmt.Printf("    %-36s %12d  $%.3f\n", k, kinds[k], float64(kinds[k])*prices[k])
	}
	fmt.Printf("  %-38s %11.2f$\n", "storage operations and queue, in money", money)
	if most > maxGraph {
		t.Errorf("%d requests in a second, Graph allows %d", most, maxGraph)
	}
	if money > maxMoney {
		t.Errorf("a million messages cost $%.2f, want at most $%d", money, maxMoney)
	}
	if f.LastRSS > f.FirstRSS+96<<10 {
		t.Errorf("memory grew from %d to %d KiB", f.FirstRSS, f.LastRSS)
	}
}

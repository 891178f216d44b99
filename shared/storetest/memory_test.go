package storetest_test

import (
	"testing"

	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/policy"
	"steno/shared/storetest"
)

func TestTailsInMemory(t *testing.T) {
	storetest.TestTails(t, func(*testing.T) evidence.Tails { return new(storetest.Tails) })
}

func TestBlobsInMemory(t *testing.T) {
	storetest.TestBlobs(t, func(*testing.T) evidence.Blobs { return new(storetest.Blobs) })
}

func TestCallsInMemory(t *testing.T) {
	storetest.TestCalls(t, func(*testing.T) storetest.Register { return new(storetest.Catalog) })
}

func TestKeysInMemory(t *testing.T) {
	storetest.TestKeys(t, func(*testing.T) evidence.Keys { return new(storetest.Keys) })
}

func TestVaultInMemory(t *testing.T) {
	v := storetest.NewVault()
	storetest.TestVault(t, func(*testing.T) evidence.Vault { return v })
	if v.Unwraps() == 0 {
		t.Error("unwraps are not counted")
	}
}

func TestCatalogInMemory(t *testing.T) {
	storetest.TestCatalog(t, func(*testing.T) conversation.Catalog { return new(storetest.Catalog) })
}

func TestRosterInMemory(t *testing.T) {
	storetest.TestRoster(t, func(*testing.T) policy.Roster { return new(storetest.Roster) })
}

func TestTrailInMemory(t *testing.T) {
	storetest.TestTrail(t, func(*testing.T) custody.Trail { return new(storetest.Trail) })
}

func TestTilesInMemory(t *testing.T) {
	storetest.TestTiles(t, func(*testing.T) custody.Tiles { return new(storetest.Tiles) })
}

func TestVersionsInMemory(t *testing.T) {
	storetest.TestVersions(t, func(*testing.T) (evidence.Blobs, evidence.Versions) {
		b := new(storetest.Blobs)
		return b, b
	})
}

func TestAttachmentsInMemory(t *testing.T) {
	storetest.TestAttachments(t, func(*testing.T) conversation.Attachments { return new(storetest.Catalog) })
}

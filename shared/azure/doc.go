// Package azure puts the interfaces of the packages above it onto Azure: sealed
// objects into Blob storage, the catalog, roster, custody trail and wrapped keys into
// Table storage, work into Service Bus queues, keys behind Key Vault.
//
// Each adapter states what one call costs in storage operations, because a bill is
// made of those. Table keys are digits, hex, base32hex, GUIDs and fixed words only:
// nothing a user wrote is ever part of a key or of an OData filter, and filters are
// built in one place.
package azure

import (
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/policy"
)

var (
	_ evidence.Blobs        = (*Blobs)(nil)
	_ evidence.Keys         = (*Keys)(nil)
	_ evidence.Vault        = (*Vault)(nil)
	_ conversation.Catalog  = (*Catalog)(nil)
	_ conversation.Failures = (*Failures)(nil)
	_ policy.Lookbacks      = (*Lookbacks)(nil)
	_ policy.Roster         = (*Roster)(nil)
	_ policy.Matters        = (*Matters)(nil)
	_ policy.Approvals      = (*Approvals)(nil)
	_ policy.Dispositions   = (*Dispositions)(nil)
	_ evidence.Dated        = (*Blobs)(nil)
	_ evidence.Governor     = (*Blobs)(nil)
	_ evidence.KeyRing      = (*Keys)(nil)
	_ evidence.VaultLog     = (*VaultLog)(nil)
	_ custody.Trail         = (*Trail)(nil)
)

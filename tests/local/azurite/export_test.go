package azurite

// InstallIn is Install for another folder.
var InstallIn = install

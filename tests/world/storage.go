package world

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"steno/shared/azure"
	"steno/tests/local/azurite"
	"steno/tests/local/worm"
)

func (w *World) startStorage(ctx context.Context, c Config) error {
	cfg := azurite.Config{
		CertFile: filepath.Join(c.Dir, "cert.pem"), KeyFile: filepath.Join(c.Dir, "key.pem"), OAuth: true, Log: c.Log,
	}
	if !c.KeepInMemory {
		cfg.Dir = filepath.Join(c.Dir, "storage")
	}
	var err error
	if w.Storage, err = azurite.Start(ctx, cfg); err != nil {
		return err
	}
	opts := azcore.ClientOptions{Transport: w.CA.Client()}
	tables, err := aztables.NewServiceClientFromConnectionString(w.Storage.ConnectionString(), &aztables.ClientOptions{ClientOptions: opts})
	if err != nil {
		return err
	}
	for _, name := range azure.Tables {
		if _, err := tables.CreateTable(ctx, name, nil); err != nil {
			return fmt.Errorf("create table %s: %w", name, err)
		}
	}
	for _, name := range []string{Container, Tails, Exports, Custody, Heads, Coverage, Witness, Notifications} {
		c, err := container.NewClientFromConnectionString(w.Storage.ConnectionString(), name, &container.ClientOptions{ClientOptions: opts})
		if err != nil {
			return err
		}
		if _, err := c.Create(ctx, nil); err != nil {
			return fmt.Errorf("create container %s: %w", name, err)
		}
	}
	return errors.Join(w.Storage.SetContainerDefault(Container, worm.Unlocked, 1), w.Storage.SetContainerDefault(Custody, worm.Unlocked, 1), w.Storage.SetContainerDefault(Coverage, worm.Unlocked, 1), w.Storage.SetContainerDefault(Witness, worm.Unlocked, 1))
}

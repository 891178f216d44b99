# Steno: the commands. Each installs what it needs below this folder; a browser for the
# page tests is taken from the system, or from Debian's packages where there is none.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

WEB   := functions/portal/web
PAGES := $(WEB)/dist/index.html
# Only these two compile Microsoft's Graph models: minutes and gigabytes, twice over with -race.
HEAVY := ./functions ./shared/msgraph/directory
LIGHT := $$(go list ./... | grep -vxF -e steno/functions -e steno/shared/msgraph/directory | grep -v '^steno/tests/bench')
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.7.0

.PHONY: help run test check bench campaign package conformance clean web tools

help: ## list the commands
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: web ## start everything on loopback against a simulated Teams tenant
	@mkdir -p dist
	go build -o dist/demo ./tests/demo
	@exec dist/demo

test: web tools ## run all tests
	go test -timeout 20m $(HEAVY)
	go test -timeout 10m -run 'Thousand|EverySingleChange' ./functions/export
	go test -race -timeout 20m $(LIGHT)

check: web ## format, vet, static analysis, import arrows, pages
	@bad=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$bad" ]; then echo "gofmt wants to change:"; echo "$$bad"; exit 1; fi
	go vet ./...
	GOOS=windows go vet ./mediabot/...
	go run $(STATICCHECK) -checks 'all,-ST1000,-ST1003,-ST1005' ./...
	go test ./tests/arch ./functions
	cd $(WEB) && npm run --silent check

bench: ## measure speed, memory and storage operations; prints ratios
	go test -count=1 -run '^$$' -bench Invocation -benchmem ./functions/internal/funchost
	go test -count=1 -run '^$$' -bench OutOfScope ./functions/notified
	go test -count=1 -timeout 30m -run '^$$' -bench . -benchtime 1x ./tests/bench/record
	go test -count=1 -timeout 30m -v ./tests/bench

campaign: ## let everything go wrong in two hundred archives, and change packages in ten thousand places; demand that nothing is lost or missed
	STENO_CAMPAIGN=200 go test -count=1 -timeout 60m -v ./functions/internal/intake
	STENO_CAMPAIGN=10000 go test -count=1 -timeout 60m -v -run EverySingleChange ./functions/export

package: web ## stage the functions app in dist/app and dist/app.zip, and the recording bot for Windows in dist/bot
	go run ./infra/package -out dist/app -zip dist/app.zip -bot dist/bot/mediabot.exe

conformance: ## check the simulated gateway against the whole contract, at full length (ten minutes and more)
	go test -count=1 -timeout 40m -v -run WholeContract ./mediabot/gateway/conformance -full

web: $(PAGES)

$(PAGES): $(WEB)/node_modules/.stamp $(shell find $(WEB)/src $(WEB)/index.html $(WEB)/vite.config.ts $(WEB)/tsconfig.json -type f 2>/dev/null)
	cd $(WEB) && npm run --silent build

$(WEB)/node_modules/.stamp: $(WEB)/package-lock.json
	cd $(WEB) && npm ci --ignore-scripts --no-audit --no-fund
	@touch $@

tools:
	@.ci/tools

clean: ## remove everything that was built or installed here
	rm -rf dist $(WEB)/node_modules tests/local/azurite/node_modules tests/browser/node_modules
	find $(WEB)/dist -mindepth 1 ! -name .gitkeep -delete

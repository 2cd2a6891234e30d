# make test   install what the tests need and run everything (the README's second command)
# make check  formatting, vet, staticcheck, go.mod, then the tests
# make bench  installs other proxies, measures polyport beside them and writes docs/performance.md; BENCH has flags
# make microbench  the Go benchmarks
# make soak   hours of fuzzing, split over all fuzz targets
# make build  a static binary, ./polyport
# make image  the container image polyport:latest, by buildah; make rootfs is the part before docker build

SHELL      := /bin/bash
GO         ?= go
TOOLS      := $(CURDIR)/.tools
GOFUMPT    := $(TOOLS)/gofumpt
STATIC     := $(TOOLS)/staticcheck
PEBBLE     := $(TOOLS)/pebble $(TOOLS)/pebble-challtestsrv
H2SPEC     := $(TOOLS)/h2spec
PEERS      := $(TOOLS)/sing-box $(TOOLS)/xray/main
VERSION    ?= dev
FUZZTIME   ?= 5m
BUILDAH    ?= buildah
CONTEXT    ?= .
BENCH      ?=

.PHONY: test check lint bench microbench soak build rootfs image deps clean

test: deps
	$(GO) vet ./...
	$(GO) test -race -timeout 20m ./...

deps: $(PEBBLE) $(H2SPEC)
	@integration/install.sh

check: lint test

lint: $(GOFUMPT) $(STATIC)
	@out=$$($(GOFUMPT) -l .); if [ -n "$$out" ]; then echo "not formatted by gofumpt:"; echo "$$out"; exit 1; fi
	$(GO) vet ./...
	GOOS=darwin $(GO) build ./...
	$(STATIC) ./...
	$(GO) mod tidy -diff

$(GOFUMPT):
	GOBIN=$(TOOLS) $(GO) install mvdan.cc/gofumpt@v0.12.0

$(STATIC):
	GOBIN=$(TOOLS) $(GO) install honnef.co/go/tools/cmd/staticcheck@v0.8.2

# The CA that the tests get certificates from, and its name server.
$(PEBBLE):
	GOBIN=$(TOOLS) $(GO) install github.com/letsencrypt/pebble/v2/cmd/$(@F)@v2.10.1

# The conformance tests of HTTP/2.
$(H2SPEC):
	GOBIN=$(TOOLS) $(GO) install github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible

# Programs that the benchmark measures UDP and next hops beside.
$(TOOLS)/sing-box:
	GOBIN=$(TOOLS) CGO_ENABLED=0 $(GO) install github.com/sagernet/sing-box/cmd/sing-box@v1.14.1

$(TOOLS)/xray/main:
	GOBIN=$(TOOLS)/xray CGO_ENABLED=0 $(GO) install github.com/xtls/xray-core/main@v1.260327.0

bench: $(PEERS)
	@integration/install.sh bench/packages.txt
	$(GO) run ./bench -out build/bench.jsonl -page docs/performance.md $(BENCH)

microbench:
	$(GO) test -run '^$$' -bench . -benchmem ./...

soak:
	@set -e; for pkg in $$($(GO) list ./...); do \
		for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "== $$pkg $$target"; \
			$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$pkg; \
		done; \
	done

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X polyport/internal/daemon.version=$(VERSION)' -o polyport .

# What the image is made of. Time zones are in the binary; CA roots come from this machine.
rootfs:
	rm -rf $(CONTEXT)/build/image
	mkdir -p $(CONTEXT)/build/image/root/etc/ssl/certs $(CONTEXT)/build/image/volume/polyport
	cp /etc/ssl/certs/ca-certificates.crt $(CONTEXT)/build/image/root/etc/ssl/certs/
	CGO_ENABLED=0 $(GO) build -trimpath -tags timetzdata -ldflags '-s -w -X polyport/internal/daemon.version=$(VERSION)' \
		-o $(CONTEXT)/build/image/root/polyport .

# The health check needs Docker's format: OCI's has none.
image: rootfs
	$(BUILDAH) bud --isolation chroot --storage-driver vfs --format docker -f Dockerfile --ignorefile .dockerignore \
		-t polyport:$(VERSION) -t polyport:latest $(CONTEXT)

clean:
	rm -rf polyport build $(TOOLS)

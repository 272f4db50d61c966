# The commands of this project. `make help` lists them.
PREFIX  ?= /usr/local
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo 0.1.0-devel)
GO      ?= go
FUZZ    ?= 1000000
# How much `make torture` does, and from where: a failure names its seed.
SEED    ?= 1
SEEDS   ?= 400
OPS     ?= 1000

STATICCHECK = $(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: help build demo test bench torture lint fuzz install uninstall clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 12

build: ## bin/unionfs-deep, one static program
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)' -o bin/unionfs-deep ./cmd/unionfs-deep

demo: build ## cut a tree of this machine into 1,200 layers, mount them, check every file
	@CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -o bin/demo ./cmd/unionfs-deep/demo
	@bin/demo --program bin/unionfs-deep

test: ## vet and every test; what was skipped, and why, comes last
	$(GO) vet ./...
	@.ci/test

bench: build ## the same work side by side on every way of mounting that is installed
	bin/unionfs-deep bench

torture: ## random layers and programs on kernel overlayfs and on us: $(SEEDS) seeds, $(OPS) operations each
	$(GO) test -count 1 -timeout 0 -run 'Random|Differential' ./overlayfallback/overlaytest -seed $(SEED) -seeds $(SEEDS) -ops $(OPS)

lint: ## gofmt, vet and staticcheck
	@test -z "$$(gofmt -l .)" || { echo 'gofmt these files:'; gofmt -l .; exit 1; }
	$(GO) vet ./...
	$(STATICCHECK) ./...

fuzz: ## each fuzz target with $(FUZZ) inputs
	@.ci/fuzz $(FUZZ)

bin/unionfs-deep:
	@$(MAKE) build

# Built only where it is missing, so that root need not have Go.
install: bin/unionfs-deep ## program, mount(8) helper, man page and completions below $(DESTDIR)$(PREFIX)
	install -D -m 755 bin/unionfs-deep $(DESTDIR)$(PREFIX)/bin/unionfs-deep
	install -d $(DESTDIR)$(PREFIX)/sbin
	ln -sf ../bin/unionfs-deep $(DESTDIR)$(PREFIX)/sbin/mount.unionfs-deep
	install -D -m 644 docs/unionfs-deep.8 $(DESTDIR)$(PREFIX)/share/man/man8/unionfs-deep.8
	install -D -m 644 cmd/unionfs-deep/completion.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/unionfs-deep
	install -D -m 644 cmd/unionfs-deep/completion.zsh $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_unionfs-deep
	install -D -m 644 cmd/unionfs-deep/completion.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/unionfs-deep.fish

uninstall: ## what install put there
	rm -f $(DESTDIR)$(PREFIX)/bin/unionfs-deep $(DESTDIR)$(PREFIX)/sbin/mount.unionfs-deep
	rm -f $(DESTDIR)$(PREFIX)/share/man/man8/unionfs-deep.8
	rm -f $(DESTDIR)$(PREFIX)/share/bash-completion/completions/unionfs-deep
	rm -f $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_unionfs-deep
	rm -f $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/unionfs-deep.fish

clean: ## what build and demo made
	rm -rf bin

# sopfs: the engine (libsop), the file system (sopfs), its tools and its tests.
#
#   make run      a volume on four folders under ./sandbox, mounted, shown, left to try; make stop ends it
#   make check    build and run all tests
#   make help     the other targets
#
# Variables: BUILD=dir  CC=clang  CFLAGS=...  SAN=asan|tsan  WERROR=1  PREFIX= DESTDIR=
#   V=1                  show whole commands
#   CORE="err label ec"  build libsop from these modules alone (others may be half-written):
#                        make CORE="err le ec" build/unit/test_ec

.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules

VERSION   := 0.1.0
SAN       ?=
BUILD     ?= $(if $(SAN),build/$(SAN),build)
CFLAGS    ?= -O2 -g
LDFLAGS   ?=
WERROR    ?=
JOBS      ?= $(shell nproc 2>/dev/null || echo 2)
ifeq ($(origin CC),default)
CC        := gcc
endif

PREFIX     ?= /usr/local
BINDIR     ?= $(PREFIX)/bin
SBINDIR    ?= $(PREFIX)/sbin
LIBDIR     ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
DATADIR    ?= $(PREFIX)/share
MANDIR     ?= $(DATADIR)/man
UNITDIR    ?= $(PREFIX)/lib/systemd/system

SAY = $(if $(V),,@echo '  $(1)  $@';)

WARN := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla \
	-Wformat=2 -Wcast-qual -Wcast-align -Wundef -Wswitch-enum -Wimplicit-fallthrough
ifneq ($(filter-out 0,$(WERROR)),)
WARN += -Werror
endif

# Headers of libraries by -isystem: their warnings are not ours (hiredis' own warn under -I).
pkg_cflags = $(patsubst -I%,-isystem %,$(shell pkg-config --cflags $(1) 2>/dev/null))
pkg_libs   = $(shell pkg-config --libs $(1) 2>/dev/null)

FUSE_CFLAGS   := $(call pkg_cflags,fuse3 jansson)
FUSE_LIBS     := $(call pkg_libs,fuse3)
CORE_PKG      := libisal liburing jansson $(shell pkg-config --exists hiredis && echo hiredis)
ifneq ($(filter hiredis,$(CORE_PKG)),)
CORE_PKG      += $(shell pkg-config --exists hiredis_ssl && echo hiredis_ssl)
endif
CORE_CFLAGS   := $(filter-out -D_FILE_OFFSET_BITS=64,$(call pkg_cflags,$(CORE_PKG))) \
	$(if $(filter hiredis,$(CORE_PKG)),-DSOP_WITH_REDIS) $(if $(filter hiredis_ssl,$(CORE_PKG)),-DSOP_WITH_REDIS_TLS)
CORE_LIBS     := -Wl,--as-needed $(call pkg_libs,$(CORE_PKG)) -lm -lpthread
CMOCKA_CFLAGS := $(call pkg_cflags,cmocka)
CMOCKA_LIBS   := $(call pkg_libs,cmocka)

SANFLAGS :=
ifeq ($(SAN),asan)
SANFLAGS := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
else ifeq ($(SAN),tsan)
SANFLAGS := -fsanitize=thread -fno-omit-frame-pointer
else ifeq ($(SAN),fuzz)
SANFLAGS := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined \
	-fno-omit-frame-pointer
CC := clang
else ifneq ($(SAN),)
$(error SAN=$(SAN): asan, tsan or fuzz)
endif

# Paths in debug data and assertions do not depend on where the tree lies.
ALL_CFLAGS = -std=gnu17 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DSOPFS_VERSION='"$(VERSION)"' -I. \
	-fPIC -ffile-prefix-map=$(CURDIR)=. $(WARN) $(CFLAGS) $(SANFLAGS)
LINK = $(CC) $(CFLAGS) $(SANFLAGS) $(LDFLAGS) -o $@

CORE_SRC  := $(if $(CORE),$(CORE:%=core/%.c),$(wildcard core/*.c))
FS_SRC    := $(wildcard fs/*.c)
LIB_SRC   := $(wildcard tests/lib/*.c)
CORE_OBJ  := $(CORE_SRC:%.c=$(BUILD)/obj/%.o)
FS_OBJ    := $(FS_SRC:%.c=$(BUILD)/obj/%.o)
LIB_OBJ   := $(LIB_SRC:%.c=$(BUILD)/obj/%.o)

UNIT_BIN    := $(patsubst tests/%.c,$(BUILD)/%,$(wildcard tests/unit/test_*.c))
UNIT_FS_BIN := $(filter $(BUILD)/unit/test_fs_%,$(UNIT_BIN))
MODEL_BIN   := $(patsubst tests/%.c,$(BUILD)/%,$(wildcard tests/model/*.c tests/crash/*.c))
FUZZ_BIN    := $(patsubst tests/%.c,$(BUILD)/%,$(filter-out %/seeds.c,$(wildcard tests/fuzz/*.c)))
FAILING_BIN := $(filter $(BUILD)/crash/failing%,$(MODEL_BIN))
EXAMPLE_BIN := $(patsubst tests/%.c,$(BUILD)/%,$(wildcard tests/examples/*.c tests/images/*.c))
LIBSOP_BENCH := $(BUILD)/bench/libsop
BENCH_BIN   := $(filter-out $(LIBSOP_BENCH),$(patsubst tests/%.c,$(BUILD)/%,$(wildcard tests/bench/*.c tests/fs/*.c)))
# Tools: mount-helpers/mkfs_sopfs.c -> mkfs.sopfs, mount-helpers/sopctl.c -> sopctl, each with the files
# that begin with its name (mkfs_*.c, sopctl_*.c); what belongs to none of them goes into all.
TOOL_STEMS  := $(patsubst mount-helpers/%_sopfs.c,%,$(wildcard mount-helpers/*_sopfs.c)) sopctl
TOOLS       := $(patsubst %,%.sopfs,$(filter-out sopctl,$(TOOL_STEMS))) sopctl
tool_src     = $(wildcard mount-helpers/$(1).c mount-helpers/$(1)_*.c)
tool_obj     = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
TOOL_SHARED := $(filter-out $(foreach t,$(TOOL_STEMS),$(call tool_src,$(t))),$(wildcard mount-helpers/*.c))
TOOL_BIN    := $(TOOLS:%=$(BUILD)/%)

.PHONY: all lib tools tests deps deps-lint deps-test deps-packages run stop check check-all check-unit \
	check-crash check-fs check-tools check-packages fuzz fuzz-run fuzz-seeds \
	check-asan check-tsan check-valgrind check-long bench bench-libsop lint install clean help

all: lib tools $(BUILD)/sopfs $(EXAMPLE_BIN)
lib: $(BUILD)/libsop.a $(BUILD)/libsop.so.0
tools: $(TOOL_BIN)
tests: $(UNIT_BIN) $(MODEL_BIN) $(EXAMPLE_BIN) $(BENCH_BIN) $(LIBSOP_BENCH)

help:
	@echo 'all run stop check check-unit check-crash check-fs check-tools check-asan check-tsan check-valgrind check-long'
	@echo 'check-packages fuzz bench bench-libsop lint deps install clean'
	@echo 'one test:   make check-fs TESTS=tests/fs/basic.sh;  make check-unit TESTS=$(BUILD)/unit/test_ec'

SH_TESTS     = $(filter-out %/functions.sh %/disks.sh %/redis.sh,$(foreach d,$(1),$(wildcard tests/$(d)/*.sh)))

# ---- objects -----------------------------------------------------------------------------------

$(BUILD)/obj/core/%.o: core/%.c
	@mkdir -p $(@D)
	$(call SAY,CC)$(CC) $(ALL_CFLAGS) $(CORE_CFLAGS) -MMD -MP -c -o $@ $<

# What runs inside the Redis server, as texts.
$(BUILD)/gen/lua.h: $(wildcard core/lua/*.lua)
	@mkdir -p $(@D)
	$(call SAY,GEN)for f in $(sort $^); do n=$${f##*/}; echo "static const char lua_$${n%.lua}[] ="; \
		sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/^/	"/' -e 's/$$/\\n"/' $$f; echo '	;'; done >$@
$(BUILD)/obj/core/coord_redis.o: $(BUILD)/gen/lua.h
$(BUILD)/obj/core/coord_redis.o: CORE_CFLAGS += -I$(BUILD)

$(BUILD)/obj/fs/%.o: fs/%.c
	@mkdir -p $(@D)
	$(call SAY,CC)$(CC) $(ALL_CFLAGS) $(FUSE_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/obj/mount-helpers/%.o: mount-helpers/%.c
	@mkdir -p $(@D)
	$(call SAY,CC)$(CC) $(ALL_CFLAGS) $(CORE_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/obj/tests/%.o: tests/%.c
	@mkdir -p $(@D)
	$(call SAY,CC)$(CC) $(ALL_CFLAGS) $(CORE_CFLAGS) $(CMOCKA_CFLAGS) $(FUSE_CFLAGS) -MMD -MP -c -o $@ $<

-include $(wildcard $(BUILD)/obj/*/*.d $(BUILD)/obj/tests/*/*.d)

# ---- what is built -----------------------------------------------------------------------------

# A fresh archive each time: ar would keep members whose source has gone.
$(BUILD)/libsop.a: $(CORE_OBJ)
	@rm -f $@
	$(call SAY,AR)ar rcsD $@ $^

# The shared library shows what the public face declares and nothing else.
FACE := core/sop.h core/admin.h core/fsck.h core/peek.h core/err.h core/log.h core/id.h core/clock.h core/range.h \
	core/key.h core/format_volume.h
FACE += core/events.h core/mounters.h
$(BUILD)/libsop.map: $(FACE)
	@mkdir -p $(@D)
	@{ echo 'SOP_0 { global:'; \
	   grep -hoE '\bsop_[a-z0-9_]+\(' $(FACE) | tr -d '(' | sort -u | sed 's/$$/;/'; \
	   echo 'local: *; };'; } >$@

$(BUILD)/libsop.so.0: $(CORE_OBJ) $(BUILD)/libsop.map
	$(call SAY,LD)$(LINK) -shared -Wl,-soname,libsop.so.0 -Wl,--version-script=$(BUILD)/libsop.map \
		$(CORE_OBJ) $(CORE_LIBS)
	@ln -sf libsop.so.0 $(BUILD)/libsop.so

$(BUILD)/sopfs: $(FS_OBJ) $(BUILD)/libsop.a
	$(call SAY,LD)$(LINK) $^ $(FUSE_LIBS) $(CORE_LIBS)

$(TOOL_BIN): $(call tool_obj,$(TOOL_SHARED)) $(BUILD)/libsop.a
	$(call SAY,LD)$(LINK) $(filter %.o,$^) $(filter %.a,$^) $(CORE_LIBS)
$(foreach t,$(filter-out sopctl,$(TOOL_STEMS)),$(eval $(BUILD)/$(t).sopfs: $(call tool_obj,$(call tool_src,$(t)))))
$(BUILD)/sopctl: $(call tool_obj,$(call tool_src,sopctl))

# Unit tests of fs have its objects beside them, without main.
# What happens while a request looks something up: what it calls goes by the test.
$(BUILD)/unit/test_fs_views: private LDFLAGS += -Wl,--wrap=sop_lookup
$(UNIT_FS_BIN): $(BUILD)/unit/%: $(BUILD)/obj/tests/unit/%.o $(filter-out %/main.o,$(FS_OBJ)) \
		$(LIB_OBJ) $(BUILD)/libsop.a
	@mkdir -p $(@D)
	$(call SAY,LD)$(LINK) $^ $(CMOCKA_LIBS) $(FUSE_LIBS) $(CORE_LIBS)

# The engine with memory that runs out: its allocations, and no others, go through tests/lib/failing.c.
$(BUILD)/libsop-failing.a: $(BUILD)/libsop.a
	$(call SAY,AR)objcopy $(foreach f,malloc calloc realloc reallocarray posix_memalign strdup strndup pthread_create,\
		--redefine-sym $(f)=failing_$(f)) $< $@

$(FAILING_BIN): $(BUILD)/%: $(BUILD)/obj/tests/%.o $(LIB_OBJ) $(BUILD)/libsop-failing.a
	@mkdir -p $(@D)
	$(call SAY,LD)$(LINK) $^ $(CMOCKA_LIBS) $(CORE_LIBS)

$(filter-out $(UNIT_FS_BIN),$(UNIT_BIN)) $(filter-out $(FAILING_BIN),$(MODEL_BIN)): $(BUILD)/%: \
		$(BUILD)/obj/tests/%.o \
		$(LIB_OBJ) $(BUILD)/libsop.a
	@mkdir -p $(@D)
	$(call SAY,LD)$(LINK) $^ $(CMOCKA_LIBS) $(CORE_LIBS)

# With SAN=fuzz. All but the one with whole volumes have the objects of fs, of which options.c is wanted.
$(BUILD)/fuzz/volume: $(BUILD)/obj/tests/fuzz/volume.o $(LIB_OBJ) $(BUILD)/libsop-failing.a
	@mkdir -p $(@D)
	$(call SAY,LD)$(LINK) -fsanitize=fuzzer $^ $(CMOCKA_LIBS) $(CORE_LIBS)

$(filter-out %/volume,$(FUZZ_BIN)): $(BUILD)/%: $(BUILD)/obj/tests/%.o $(filter-out %/main.o,$(FS_OBJ)) $(LIB_OBJ) \
		$(BUILD)/libsop.a
	@mkdir -p $(@D)
	$(call SAY,LD)$(LINK) -fsanitize=fuzzer $^ $(CMOCKA_LIBS) $(FUSE_LIBS) $(CORE_LIBS)

$(BUILD)/fuzz/seeds: $(BUILD)/obj/tests/fuzz/seeds.o $(LIB_OBJ) $(BUILD)/libsop.a
	@mkdir -p $(@D)
	$(call SAY,LD)$(LINK) $^ $(CMOCKA_LIBS) $(CORE_LIBS)

$(EXAMPLE_BIN) $(LIBSOP_BENCH): $(BUILD)/%: $(BUILD)/obj/tests/%.o $(BUILD)/libsop.a
	@mkdir -p $(@D)
	$(call SAY,LD)$(LINK) $^ $(CORE_LIBS)

# Drivers of the mount and the RAM-only floor: they know nothing of sopfs.
$(BENCH_BIN): $(BUILD)/%: $(BUILD)/obj/tests/%.o
	@mkdir -p $(@D)
	$(call SAY,LD)$(LINK) $^ $(FUSE_LIBS) -lpthread

# Objects are kept.
.SECONDARY:

# ---- packages ----------------------------------------------------------------------------------

deps:
	@packaging/deps.sh

deps-test:
	@packaging/deps.sh test

deps-packages:
	@packaging/deps.sh packages

deps-lint:
	@packaging/deps.sh lint

# ---- a volume to try ---------------------------------------------------------------------------

# The build is a make of its own, so that it looks for libraries after they have been installed.
run:
	@packaging/deps.sh
	+@$(MAKE) --no-print-directory -s -j$(JOBS) all
	@BUILD=$(BUILD) tests/sandbox.sh start

stop:
	@BUILD=$(BUILD) tests/sandbox.sh stop

# ---- tests -------------------------------------------------------------------------------------

TESTS ?=
RUN_TESTS := BUILD=$(BUILD) tests/run

check:
	@packaging/deps.sh test
	+@$(MAKE) --no-print-directory -j$(JOBS) all tests
	+@$(MAKE) --no-print-directory check-all

# One run of all, one summary at its end.
check-all: all tests
	@$(RUN_TESTS) $(or $(TESTS),$(UNIT_BIN) $(MODEL_BIN) $(call SH_TESTS,crash fs tools))

check-unit: $(UNIT_BIN) $(MODEL_BIN)
	@$(RUN_TESTS) $(or $(TESTS),$(UNIT_BIN) $(MODEL_BIN))

# Crash points by the ten thousand; make check-long has a million of them.
check-crash: all tests
	@$(RUN_TESTS) $(filter $(BUILD)/crash/%,$(MODEL_BIN)) $(call SH_TESTS,crash)

check-fs: all tests
	@$(RUN_TESTS) $(or $(TESTS),$(call SH_TESTS,fs))

check-tools: all tests
	@$(RUN_TESTS) $(or $(TESTS),$(call SH_TESTS,tools))

# Packages for Debian 12 and 13, tried in fresh systems; an RPM; an Arch package. Takes minutes, and wants
# Debian's archive.
check-packages: all tests
	@TEST_TIMEOUT=3600 $(RUN_TESTS) $(or $(TESTS),$(call SH_TESTS,packages))

# Under sanitizers, on request: in minutes, on cores with nothing else to do. SMALL=1: what would take hours is
# done by fewer, of each kind some.
# TSan sees nothing in a process that was forked while the tester had threads, and would end it for beginning some.
SAN_ENV := SMALL=1 TEST_TIMEOUT=1800
san_check = +@$(SAN_ENV) TSAN_OPTIONS=die_after_fork=0 $(MAKE) --no-print-directory SAN=$(1) check-all TESTS='$(2)'

ASAN_SH := $(patsubst %,tests/%.sh,fs/any_call fs/basic fs/bad_input fs/kill9 fs/sessions fs/txn fs/locks fs/locks_posix \
	fs/forced fs/shared fs/shared_redis fs/shared_locks fs/secrets tools/test_dump tools/test_import)
check-asan:
	$(call san_check,asan,$$(UNIT_BIN) $$(MODEL_BIN) $(ASAN_SH))

# The crash programs, the other models and test_btree run on one thread.
TSAN_SH := $(patsubst %,tests/%.sh,fs/any_call fs/basic fs/closers fs/control fs/disks_change fs/kill9 fs/sessions \
	fs/shared fs/txn tools/test_dump)
check-tsan:
	$(call san_check,tsan,$$(filter-out %/test_btree,$$(UNIT_BIN)) $$(BUILD)/model/shared $(TSAN_SH))

# What the sanitizers do not see: use of what was never set. Without io_uring, whose results valgrind does not
# see arrive, and without the tests of many threads, which it runs one at a time.
VALGRIND_BIN = $(filter-out %/test_io %_threads %/test_lock %/test_pins,$(UNIT_BIN))
check-valgrind: $(UNIT_BIN)
	@$(SAN_ENV) NO_URING=1 RUN_UNDER="valgrind -q --fair-sched=yes --error-exitcode=9 --leak-check=full \
		--errors-for-leak-kinds=definite" \
		$(RUN_TESTS) $(or $(TESTS),$(VALGRIND_BIN))

# Each decoder for FUZZ_SECONDS (60) with whatever libFuzzer comes up with.
fuzz:
	+@$(MAKE) --no-print-directory SAN=fuzz fuzz-run
fuzz-run: $(FUZZ_BIN)
	@BUILD=$(BUILD) JOBS=$(JOBS) tests/fuzz/run.sh $(FUZZ_BIN)

# The corpus in the tree, anew.
fuzz-seeds: $(BUILD)/fuzz/seeds
	$(BUILD)/fuzz/seeds tests/fuzz/corpus

# A night: the million crash points alone take two processors for twenty minutes.
check-long: all tests
	@LONG=1 TEST_TIMEOUT=14400 $(RUN_TESTS) $(UNIT_BIN) $(MODEL_BIN) \
		$(call SH_TESTS,crash fs tools long packages)

# QUICK=1: a few minutes. JSON=FILE: the figures. OPTIONS=...: of the mount. What it is compared with, and
# more to set: tests/bench/bench.sh. Rebuilding a disk needs root.
bench: all tests
	@BUILD=$(BUILD) tests/bench/bench.sh $(if $(JSON),--json $(JSON)) $(OPTIONS)
	@BUILD=$(BUILD) MIB=$(if $(QUICK),128,512) tests/bench/disks.sh || [ $$? = 77 ]
	@BUILD=$(BUILD) COUNT=$(if $(QUICK),50,200) tests/bench/shared.sh || [ $$? = 77 ]

# The library alone, in SOP's own shape. FOLDER: where (default: a temporary one); LONG=1: ten million items.
bench-libsop: $(LIBSOP_BENCH)
	@d=$$(mktemp -d "$${FOLDER:-$${TMPDIR:-/tmp}}/sopbench.XXXXXX") && \
		{ $(LIBSOP_BENCH) "$$d" $(if $(LONG),10); rc=$$?; rm -rf "$$d"; exit $$rc; }

lint:
	@tests/lint/layers.sh
	@tests/lint/sources.sh
	@tests/lint/documents.sh
	@tests/lint/tools.sh

# ---- install -----------------------------------------------------------------------------------

# mount(8) looks for mount.sopfs in /sbin alone; with another PREFIX use -t fuse.sopfs, or sopfs itself.
HELPER_NAMES := mount.sopfs mount.fuse.sopfs
MAN_PAGES    := $(wildcard mount-helpers/man/*.[1-9])

install: all
	install -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(SBINDIR) $(DESTDIR)$(LIBDIR)/pkgconfig \
		$(DESTDIR)$(INCLUDEDIR)/sop/core $(DESTDIR)$(UNITDIR) \
		$(DESTDIR)$(DATADIR)/bash-completion/completions \
		$(DESTDIR)$(DATADIR)/zsh/site-functions \
		$(DESTDIR)$(DATADIR)/fish/vendor_completions.d
	install -m 755 $(BUILD)/sopfs $(DESTDIR)$(BINDIR)/sopfs
	install -m 755 $(BUILD)/sopctl $(DESTDIR)$(BINDIR)/sopctl
	for t in $(filter-out sopctl,$(TOOLS)); do \
		install -m 755 $(BUILD)/$$t $(DESTDIR)$(SBINDIR)/$$t || exit 1; done
	for l in $(HELPER_NAMES); do ln -sf $(BINDIR)/sopfs $(DESTDIR)$(SBINDIR)/$$l || exit 1; done
	ln -sf umount.sopfs $(DESTDIR)$(SBINDIR)/umount.fuse.sopfs
	install -m 644 $(BUILD)/libsop.so.0 $(DESTDIR)$(LIBDIR)/libsop.so.0
	ln -sf libsop.so.0 $(DESTDIR)$(LIBDIR)/libsop.so
	install -m 644 $(BUILD)/libsop.a $(DESTDIR)$(LIBDIR)/libsop.a
	install -m 644 core/base.h $(FACE) $(DESTDIR)$(INCLUDEDIR)/sop/core/
	sed -e 's|@VERSION@|$(VERSION)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' \
		-e 's|@REQUIRES@|$(strip $(CORE_PKG))|' packaging/libsop.pc.in >$(DESTDIR)$(LIBDIR)/pkgconfig/libsop.pc
	for u in mount-helpers/systemd/*.service mount-helpers/systemd/*.timer; do \
		sed -e 's|@BINDIR@|$(BINDIR)|' -e 's|@SBINDIR@|$(SBINDIR)|' $$u \
			>$(DESTDIR)$(UNITDIR)/$${u##*/} || exit 1; done
	for m in $(MAN_PAGES); do \
		d=$(DESTDIR)$(MANDIR)/man$${m##*.}; install -d $$d && install -m 644 $$m $$d/ || exit 1; done
	for l in $(HELPER_NAMES); do ln -sf sopfs.8 $(DESTDIR)$(MANDIR)/man8/$$l.8 || exit 1; done
	ln -sf umount.sopfs.8 $(DESTDIR)$(MANDIR)/man8/umount.fuse.sopfs.8
	install -m 644 mount-helpers/completions/sopfs.bash \
		$(DESTDIR)$(DATADIR)/bash-completion/completions/sopfs
	for n in $(HELPER_NAMES) $(TOOLS); do \
		ln -sf sopfs $(DESTDIR)$(DATADIR)/bash-completion/completions/$$n || exit 1; done
	install -m 644 mount-helpers/completions/_sopfs $(DESTDIR)$(DATADIR)/zsh/site-functions/_sopfs
	for n in sopfs $(TOOLS); do install -m 644 mount-helpers/completions/sopfs.fish \
		$(DESTDIR)$(DATADIR)/fish/vendor_completions.d/$$n.fish || exit 1; done

clean:
	rm -rf $(BUILD)

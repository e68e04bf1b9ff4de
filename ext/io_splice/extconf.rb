# frozen_string_literal: true

require_relative "needs"

Needs.linux
Needs.rust
Needs.libclang

require "mkmf"
begin
  require "rb_sys/mkmf"
rescue LoadError
  abort "io_splice: the gem rb_sys is needed to build this gem: `gem install rb_sys`."
end

create_rust_makefile("io_splice/io_splice")

# When Cargo has failed because it cannot get at the crates, that is said in the last line.
makefile = File.read("Makefile")
makefile.sub!(/^\t(\$\(CARGO\) rustc .*)$/) do
  manifest = "--manifest-path $(RB_SYS_CARGO_MANIFEST_DIR)/Cargo.toml"
  "\t#{Regexp.last_match(1)} || { $(CARGO) fetch --quiet --locked #{manifest} 2>/dev/null || " \
    "echo 'io_splice: the crates that this gem needs cannot be fetched: that takes the network (crates.io).' >&2; " \
    "exit 1; }"
end
File.write("Makefile", makefile)

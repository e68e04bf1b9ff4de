# frozen_string_literal: true

# Copies between all file systems that the kernel here has, and between them and pipes and sockets; each copy is
# compared with what plain read and write make of it. It prints a table, and its exit status is 1 when one is wrong:
#
#     ruby -Ilib reliability/filesystems.rb [NAME…]
#
# NAMEs are the file systems that are wanted (all). They are images in memory, mounted in a namespace of their own: with
# this program all of it is gone, however it ends. That takes root. What the kernel does not know, or what is not
# installed that a file system takes, stands in the table. On another kernel:
#
#     bin/with-kernel 6.1 ruby -Ilib reliability/filesystems.rb

abort "this mounts file systems, and takes root" unless Process.uid.zero?
if ENV["FILESYSTEMS_NAMESPACE"].nil?
  # A namespace of processes as well: what serves a file system dies with this program, and that with unshare.
  exec({ "FILESYSTEMS_NAMESPACE" => "own" },
       *%w[unshare --mount --propagation private --pid --fork --kill-child --mount-proc],
       RbConfig.ruby, *$LOAD_PATH.map { |path| "-I#{path}" }, __FILE__, *ARGV)
end

$LOAD_PATH.unshift File.expand_path("../lib", __dir__)

require "io/splice"
require "io/wait"
require "timeout"
require_relative "support/ends"
require_relative "../test/support/fuse"
%w[mounts tally copies limits].each { |name| require_relative "filesystems/#{name}" }

Thread.report_on_exception = false
$stdout.sync = true
unknown = ARGV - Filesystems::MOUNTS.keys
unknown.empty? or abort "unknown: #{unknown.join(", ")}; known: #{Filesystems::MOUNTS.keys.join(", ")}"

mounts = Filesystems.mount(ARGV.empty? ? Filesystems::MOUNTS.keys : ARGV)
tally = Filesystems::Tally.new(mounts)
there = mounts.select(&:there?)
there.each do |mount|
  puts mount.name
  Filesystems::Copies.new(mount, there, tally).run
  Filesystems::Limits.new(mount, tally).run
end
tally.print
exit tally.failures.zero?

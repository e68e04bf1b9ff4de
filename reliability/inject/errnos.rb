# frozen_string_literal: true

# What can go wrong with a system call.
module Inject
  # No error, but an end of the input that is none: read(2) would give more.
  UNTRUE_END = "0"
  OPEN = %w[EINTR EMFILE ENFILE ENOMEM EACCES ENOSPC EROFS EDQUOT].freeze

  # What each call can answer, by its manual page, on ends that are as they should be. close(2) is not among them: it
  # closes whatever it answers, and strace does not make the call at all.
  ERRNOS = {
    splice: %w[EAGAIN EINTR EINVAL EBADF ENOMEM EPIPE EIO ENOSPC EDQUOT EFBIG ECONNRESET ENOSYS EPERM EACCES],
    tee: %w[EAGAIN EINTR EINVAL ENOMEM EPIPE ENOSYS EPERM],
    vmsplice: %w[EAGAIN EINTR EINVAL EBADF ENOMEM EPIPE ENOSYS EPERM],
    sendfile: %w[EAGAIN EINTR EINVAL EBADF ENOMEM EPIPE EIO ENOSPC EDQUOT EFBIG ECONNRESET EOVERFLOW EOPNOTSUPP ENOSYS
                 EPERM EACCES],
    copy_file_range: %w[EINTR EINVAL EBADF EFBIG EIO ENOMEM ENOSPC EDQUOT EOPNOTSUPP EOVERFLOW EPERM ETXTBSY EXDEV
                        ENOSYS EACCES],
    read: %w[EAGAIN EINTR EIO EINVAL ENOMEM ECONNRESET],
    pread64: %w[EINTR EIO EINVAL ENOMEM],
    write: %w[EAGAIN EINTR EIO EINVAL ENOSPC EDQUOT EFBIG EPIPE ECONNRESET ENOMEM EPERM],
    writev: %w[EAGAIN EINTR EPIPE ENOMEM],
    pwritev2: %w[EAGAIN EINTR EPIPE ENOMEM EOPNOTSUPP ENOSYS EPERM],
    poll: %w[EINTR ENOMEM], ppoll: %w[EINTR ENOMEM],
    epoll_create1: %w[EMFILE ENFILE ENOMEM ENOSYS EPERM], epoll_ctl: %w[ENOMEM ENOSPC],
    fcntl: %w[EMFILE EPERM EBUSY ENOMEM EBADF],
    pipe2: %w[EMFILE ENFILE ENOSYS EPERM],
    lseek: [], # of a file, which is all that it is asked of, it is never refused
    fstat: %w[ENOMEM EIO], newfstatat: %w[ENOMEM EIO], fstatfs: %w[ENOSYS EIO ENOMEM EINTR],
    open: OPEN, openat: OPEN, shutdown: %w[ENOTCONN EINVAL],
    mmap: %w[ENOMEM], mremap: %w[ENOMEM EINVAL ENOSYS], madvise: %w[EINVAL ENOMEM], prctl: %w[EINVAL EPERM]
  }.freeze

  # What a file never answers.
  NOT_OF_FILES = %w[EAGAIN EPIPE ECONNRESET].freeze
  # What a read or write between memory and a pipe or socket never answers.
  OF_FILES_ONLY = %w[ENOSPC EDQUOT EFBIG EIO EINVAL].freeze

  FCNTL = {
    "F_DUPFD_CLOEXEC" => %w[EMFILE], "F_SETPIPE_SZ" => %w[EPERM EBUSY ENOMEM],
    "F_SETFL" => %w[EPERM EBADF], "F_GETFL" => %w[EBADF]
  }.freeze

  module_function

  # What a call is answered with. `untrue`: also an end that is none.
  def answers(call, untrue) = untrue && call == :splice ? [*ERRNOS[call], UNTRUE_END] : ERRNOS[call]

  # Whether the kernel could have given this answer. The descriptors are numbers: those of Ruby itself, and with their
  # kinds (:file, :stream, :socket) those of the ends; any other belongs to the gem.
  def plausible?(line, errno, rubys, ends)
    return false if line.descriptors.intersect?(rubys)
    # A pipe always tells the truth, and who has no size cannot be told from who has ended.
    return %i[file socket].include?(ends[line.descriptors.first]) if errno == UNTRUE_END

    case line.call
    when :fcntl then FCNTL.fetch(line.arguments[/F_\w+/], []).include?(errno)
    when :read, :write then answers?(ends[line.descriptors.first], errno)
    else true
    end
  end

  # Whether a read or a write of an end of this kind can answer so.
  def answers?(kind, errno)
    case kind
    when nil then errno == "EINTR"
    when :file, :empty then !NOT_OF_FILES.include?(errno)
    else !OF_FILES_ONLY.include?(errno)
    end
  end
end

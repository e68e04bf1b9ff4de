# frozen_string_literal: true

module SpliceTest
  # As assert_equal, of bytes whatever their encoding, with a difference that can be read.
  def assert_bytes(expected, actual, what = nil)
    return pass if expected.b == actual&.b

    actual = actual.to_s
    at = (0...expected.bytesize).find { |index| expected.getbyte(index) != actual.getbyte(index) } || expected.bytesize
    flunk "#{"#{what}: " if what}#{actual.bytesize} bytes instead of #{expected.bytesize}, " \
          "the first that differs is #{at}: #{actual.byteslice(at, 20).inspect}"
  end
end

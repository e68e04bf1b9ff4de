# frozen_string_literal: true

# A certificate for this machine that nobody but its key has signed, good for an hour.
module SelfSigned
  def self.certificate(key)
    OpenSSL::X509::Certificate.new.tap do |certificate|
      certificate.subject = certificate.issuer = OpenSSL::X509::Name.parse("/CN=localhost")
      certificate.public_key = key
      certificate.serial = 1
      certificate.not_before = Time.now - 60
      certificate.not_after = Time.now + 3600
      certificate.sign(key, "SHA256")
    end
  end
end

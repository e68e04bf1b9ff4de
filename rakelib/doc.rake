# frozen_string_literal: true

require "cgi"
require "open3"
require "pathname"
require "uri"

# The site in doc/: .yardopts says what it consists of.
module Site
  REPOSITORY = "#{GEMSPEC.homepage}/blob/main".freeze
  TEXTS = FileList["*.md", "docs/**/*.md", "LICENSE"]
  # A link from a text to a file.
  LINK = /(href|src)="([^"#:?]+)(?=["#])/
  # Any link to somewhere on this site: the file, and the place in it.
  INSIDE = /(?:href|src)=["'](?![a-z]+:)([^"'#?]*)[^"'#]*#?([^"']*)/

  module_function

  def yard(*args)
    # Before Ruby 3.2, YARD 0.9.43 misses Set.
    env = { "RUBYOPT" => "#{ENV.fetch("RUBYOPT", nil)} -rset" }
    report, status = Open3.capture2e(env, "yard", *args, "--fail-on-warning", "--no-save")
    status.success? or abort "#{report}yard #{args.first}: a warning is an error"
    report
  rescue Errno::ENOENT
    abort "yard is missing here: apt-get install yard ruby-redcarpet, or gem install yard redcarpet"
  end

  # What YARD calls the page of a text.
  def page(text) = text == "README.md" ? "index.html" : text.pathmap("file.%n.html")

  def pages = TEXTS.to_h { |text| [page(text), text] }.merge("file.README.html" => "README.md")

  # YARD leaves the links between the texts as they are in the repository, and names the headings in a way of its own.
  def mend_links
    pages.each do |page, text|
      html = File.read("doc/#{page}").gsub(LINK) do |whole|
        kind, link = Regexp.last_match.captures
        File.file?("doc/#{link}") ? whole : %(#{kind}="#{destination(kind, text, link)})
      end
      File.write("doc/#{page}", html.gsub(%r{<(h\d) id="[^"]*">(.*?)</\1>}) { heading(*Regexp.last_match.captures) })
    end
  end

  # As it is linked to on GitHub.
  def heading(tag, html)
    words = CGI.unescapeHTML(html.gsub(/<.*?>/, "")).downcase
    %(<#{tag} id="#{words.gsub(/[^[:word:] -]/, "").tr(" ", "-")}">#{html}</#{tag}>)
  end

  def destination(kind, text, link)
    path = Pathname(text).dirname.join(link).cleanpath.to_s
    File.exist?(path) or abort "#{text}: there is no #{link}"
    return picture(path) if kind == "src"

    TEXTS.include?(path) ? page(path) : "#{REPOSITORY}/#{path}"
  end

  def picture(path)
    FileUtils.mkdir_p("doc/#{path.pathmap("%d")}")
    FileUtils.cp(path, "doc/#{path}")
    path
  end

  def check_links
    dead = FileList["doc/**/*.html"].flat_map do |page|
      links = File.read(page).scan(INSIDE).uniq.map { |link| link.map { |part| URI::DEFAULT_PARSER.unescape(part) } }
      links.reject { |file, place| there?(file.empty? ? page : page.pathmap("%d/#{file}"), place) }
           .map { |link| "#{page}: #{link.join("#").delete_suffix("#")}" }
    end
    dead.empty? or abort "dead links:\n#{dead.join("\n")}"
  end

  def there?(file, place)
    File.file?(file) && (place.empty? || File.read(file).include?(%(id="#{place}")))
  end
end

namespace :doc do
  desc "Fail unless everything public is documented"
  task :check do
    report = Site.yard("stats", "--list-undoc")
    report.include?("100.00% documented") or abort report
    # It counts as documented what has nothing but tags.
    mute = Site.yard("doc", "--list", "--query", "object.docstring.to_s.empty? && !object.has_tag?(:return)")
    mute.empty? or abort "nothing is said of\n#{mute}"
    # YARD takes a directive at the end of a class for one of the top level.
    stray = Site.yard("doc", "--list").lines.grep_v(/: IO\b/)
    stray.empty? or abort "not in IO:\n#{stray.join}"
    puts report
  end
end

desc "Build the site of the documentation in doc/; a warning or a dead link is an error"
task doc: "doc:check" do
  rm_rf "doc", verbose: false
  Site.yard("doc", "--no-stats", "--template-path", "docs/site", "--output-dir", "doc")
  Site.mend_links
  Site.check_links
  puts "doc/index.html: #{FileList["doc/**/*.html"].size} pages"
end

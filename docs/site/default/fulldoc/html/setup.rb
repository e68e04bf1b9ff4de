# frozen_string_literal: true

def init
  options.files.each { |file| file.attributes[:title] ||= file.contents[/^# (.+)/, 1] }
  options.readme.attributes[:title] = "Overview"
  options.objects -= [YARD::Registry.root]
  super
end

def generate_list_contents
  @list_title = "io_splice"
  super
end

# In the order in which the README names them.
def guides
  readme = options.readme.contents
  files = options.files.select { |file| file.filename.start_with?("docs/guides/") }
  [options.readme, *files.sort_by { |file| readme.index("(#{file.filename}") || readme.size }]
end

def sections_of_contents
  { "Guides" => guides, "API" => options.objects.sort_by(&:path), "Project" => options.files - guides }
end

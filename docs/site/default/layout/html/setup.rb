# frozen_string_literal: true

def init
  super
  @page_title = @breadcrumb_title = @file.title if @file
end

# The list of classes has the guides too: see full_list_class.erb.
def menu_lists
  [{ type: "class", title: "Contents" }, { type: "method", title: "Methods" }]
end

def url_for_list(type) = super(type == "file" ? "class" : type)

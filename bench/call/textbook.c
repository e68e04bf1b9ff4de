/* splice and tee as the guides to Ruby's C API teach it: what `bench/call.rb` compares the gem with. */

#include <ruby.h>
#include <ruby/io.h>
#include <ruby/thread.h>

#include <errno.h>
#include <fcntl.h>

struct transfer {
    int fd_in, fd_out;
    off_t *off_in, *off_out;
    size_t len;
    unsigned flags;
    ssize_t moved;
};

static VALUE sym_EAGAIN;

static int input_descriptor(VALUE io)
{
    if (RB_INTEGER_TYPE_P(io))
        return NUM2INT(io);
    return rb_io_descriptor(rb_io_get_io(io));
}

static int output_descriptor(VALUE io)
{
    if (RB_INTEGER_TYPE_P(io))
        return NUM2INT(io);
    return rb_io_descriptor(rb_io_get_write_io(rb_io_get_io(io)));
}

static off_t *offset(VALUE number, off_t *place)
{
    if (NIL_P(number))
        return NULL;
    *place = NUM2OFFT(number);
    return place;
}

static unsigned flag_bits(VALUE flags)
{
    return NIL_P(flags) ? 0 : NUM2UINT(flags);
}

static void *splice_without_gvl(void *arg)
{
    struct transfer *t = arg;
    t->moved = splice(t->fd_in, t->off_in, t->fd_out, t->off_out, t->len, t->flags);
    return NULL;
}

static void *tee_without_gvl(void *arg)
{
    struct transfer *t = arg;
    t->moved = tee(t->fd_in, t->fd_out, t->len, t->flags);
    return NULL;
}

static ssize_t transfer(void *(*call)(void *), struct transfer *t)
{
    do {
        rb_thread_call_without_gvl(call, t, RUBY_UBF_IO, NULL);
    } while (t->moved == -1 && errno == EINTR);
    return t->moved;
}

static ssize_t do_splice(int argc, VALUE *argv, unsigned more_flags)
{
    VALUE io_in, off_in, io_out, off_out, len, flags;
    off_t in, out;
    struct transfer t;

    rb_scan_args(argc, argv, "51", &io_in, &off_in, &io_out, &off_out, &len, &flags);
    t.off_in = offset(off_in, &in);
    t.off_out = offset(off_out, &out);
    t.len = NUM2SIZET(len);
    t.flags = flag_bits(flags) | more_flags;
    t.fd_in = input_descriptor(io_in);
    t.fd_out = output_descriptor(io_out);
    transfer(splice_without_gvl, &t);
    RB_GC_GUARD(io_in);
    RB_GC_GUARD(io_out);
    return t.moved;
}

static ssize_t do_tee(int argc, VALUE *argv, unsigned more_flags)
{
    VALUE io_in, io_out, len, flags;
    struct transfer t;

    rb_scan_args(argc, argv, "31", &io_in, &io_out, &len, &flags);
    t.len = NUM2SIZET(len);
    t.flags = flag_bits(flags) | more_flags;
    t.fd_in = input_descriptor(io_in);
    t.fd_out = output_descriptor(io_out);
    transfer(tee_without_gvl, &t);
    RB_GC_GUARD(io_in);
    RB_GC_GUARD(io_out);
    return t.moved;
}

static VALUE moved_or_raise(ssize_t moved, const char *call)
{
    if (moved == -1)
        rb_sys_fail(call);
    if (moved == 0)
        rb_eof_error();
    return SSIZET2NUM(moved);
}

static VALUE moved_or_symbol(ssize_t moved, const char *call)
{
    if (moved == -1 && errno == EAGAIN)
        return sym_EAGAIN;
    if (moved == -1)
        rb_sys_fail(call);
    return moved == 0 ? Qnil : SSIZET2NUM(moved);
}

static VALUE textbook_splice(int argc, VALUE *argv, VALUE self)
{
    return moved_or_raise(do_splice(argc, argv, 0), "splice");
}

static VALUE textbook_trysplice(int argc, VALUE *argv, VALUE self)
{
    return moved_or_symbol(do_splice(argc, argv, SPLICE_F_NONBLOCK), "splice");
}

static VALUE textbook_trytee(int argc, VALUE *argv, VALUE self)
{
    return moved_or_symbol(do_tee(argc, argv, SPLICE_F_NONBLOCK), "tee");
}

void Init_textbook(void)
{
    VALUE textbook = rb_define_module("Textbook");

    sym_EAGAIN = ID2SYM(rb_intern("EAGAIN"));
    rb_define_module_function(textbook, "splice", textbook_splice, -1);
    rb_define_module_function(textbook, "trysplice", textbook_trysplice, -1);
    rb_define_module_function(textbook, "trytee", textbook_trytee, -1);
}

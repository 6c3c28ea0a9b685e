// A driver for tests: a device that says which version of the driver it has, and ways to go wrong.
//
// DEMO_VERSION  the version, a string
// DEMO_FAILS    init returns an error: the module does not load
// DEMO_PANICS   init takes the device down
// DEMO_OOPSES   a read of the device dereferences a null pointer: the reader dies, the kernel is tainted
#include <linux/fs.h>
#include <linux/init.h>
#include <linux/kernel.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/uaccess.h>

static ssize_t demo_read(struct file *file, char __user *buffer, size_t size, loff_t *place)
{
	static const char text[] = DEMO_VERSION "\n";

#ifdef DEMO_OOPSES
	WRITE_ONCE(*(int *)NULL, 1);
#endif
	return simple_read_from_buffer(buffer, size, place, text, sizeof(text) - 1);
}

static const struct file_operations demo_operations = {
	.owner = THIS_MODULE, // an open file is a use of the module
	.read = demo_read,
};

static struct miscdevice demo_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "fairlead_demo",
	.fops = &demo_operations,
	.mode = 0444,
};

static int __init demo_init(void)
{
#ifdef DEMO_PANICS
	panic("fairlead_demo " DEMO_VERSION " takes the device down\n");
#endif
#ifdef DEMO_FAILS
	pr_err("fairlead_demo " DEMO_VERSION ": no such hardware\n");
	return -ENODEV;
#endif
	return misc_register(&demo_device);
}

static void __exit demo_exit(void)
{
	misc_deregister(&demo_device);
}

module_init(demo_init);
module_exit(demo_exit);
MODULE_LICENSE("GPL");
MODULE_VERSION(DEMO_VERSION);
MODULE_DESCRIPTION("A driver that tests update");
